/**
 * Completes package-lock.json after a change of dependencies: `node scripts/lock.js`, then `node scripts/flake.js`.
 *
 * npm leaves out the programs for other systems that the registry in use does not serve, and `npm ci` then refuses the
 * lock file because they are missing. With their version and system in the lock file, npm skips those of other systems.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "./tool.js"

const systems = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"]
const processors = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "wasm32", "x64"]

/**
 * The system that a platform package is for, by its name.
 *
 * @param {string} name
 */
const platform = (name) => {
  const words = name
    .replace(/^.*\//, "")
    .replace(/p(?:ower)?pc64le/, "ppc64")
    .split("-")
  const os = systems.find((system) => words.includes(system))
  const cpu = processors.find((processor) => words.includes(processor))
  const libc = words.some((word) => word.startsWith("musl"))
    ? "musl"
    : words.some((word) => word.startsWith("gnu"))
      ? "glibc"
      : undefined
  return {
    cpu: cpu && { cpu: [cpu] },
    libc: os === "linux" && libc && { libc: [libc] },
    os: os && { os: [os] }
  }
}

const file = join(root, "package-lock.json")
const lock = JSON.parse(readFileSync(file, "utf8"))
let added = 0
for (const [path, entry] of Object.entries({ ...lock.packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`
    if (lock.packages[place] || lock.packages[`${path}/${place}`] || !/^\d/.test(version)) continue
    const { cpu, libc, os } = platform(name)
    // In npm's own order.
    lock.packages[place] = { version, ...cpu, ...(entry.dev && { dev: true }), ...libc, optional: true, ...os }
    added++
  }
}
// @effect/opentelemetry depends on the OpenTelemetry SDK, 44 MB that only its bridge to it uses. The command takes its OTLP
// exporter alone, bundled into dist/nodepass.cjs, so here those are optional and left out.
for (const [path, entry] of Object.entries({ ...lock.packages })) {
  if (path.startsWith("node_modules/@opentelemetry/")) delete lock.packages[path]
  const bridged = Object.keys(entry.peerDependencies ?? {}).filter((name) => name.startsWith("@opentelemetry/"))
  if (bridged.length === 0 || lock.packages[path] === undefined) continue
  const optional = Object.fromEntries(bridged.map((name) => [name, { optional: true }]))
  lock.packages[path] = { ...entry, peerDependenciesMeta: { ...entry.peerDependenciesMeta, ...optional } }
}
lock.packages = Object.fromEntries(
  Object.entries(lock.packages).toSorted(([left], [right]) => left.localeCompare(right, "en"))
)
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`package-lock.json: ${added} packages for other systems added`)
