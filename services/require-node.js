// Loaded with --import before any TypeScript, so that a Node without type stripping (older than 24) ends in one
// clear sentence instead of a loader error. Plain JavaScript on purpose: it must parse on old versions.
// npm's scripts find Node 24 in node_modules/.bin where a platform package supplied it (Linux on x64 and arm64).

const major = Number(process.versions.node.split('.')[0])
if (!(major >= 24)) {
  process.stderr.write(
    `Portolan needs Node 24 or newer; this is ${process.version} at ${process.execPath}. ` +
      'On Linux `npm ci` installs it beside the project (use the npm scripts); elsewhere install Node 24 first.\n',
  )
  process.exit(1)
}
