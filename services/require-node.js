// Loaded with --import before any TypeScript, so that a Node version without type stripping (older than 24) exits with
// one clear sentence instead of a loader error. This is plain JavaScript because old versions must be able to parse it.
// npm scripts find Node 24 in node_modules/.bin where a platform package installs it (Linux on x64 and arm64).

const major = Number(process.versions.node.split('.')[0])
if (!(major >= 24)) {
  process.stderr.write(
    `Portolan needs Node 24 or newer; this is ${process.version} at ${process.execPath}. ` +
      'On Linux, `npm ci` installs it in the project (use the npm scripts). Elsewhere, install Node 24 first.\n',
  )
  process.exit(1)
}
