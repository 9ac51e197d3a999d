// Frees the memory of a chunk at once, instead of waiting for the garbage collector.
//
// Node copies each 64 KiB of a request body into a separate ArrayBuffer. V8 counts these and marks its whole heap each
// time they have grown by some ten megabytes. This took a third of the time of an upload of 100 MB. Freed memory is not
// counted.

/**
 * The owner of the chunk calls this when the chunk is no longer read. It is empty afterwards. A view of part of a
 * buffer frees nothing.
 */
export function freeMemory({ buffer, byteLength }: Buffer): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
}
