/**
 * The npm packages of flake.nix. `node scripts/flake.js modules OS CPU` installs what a build on that system needs,
 * `node scripts/flake.js native OS CPU FOLDER` copies what the command loads beside its bundle, and `node scripts/flake.js`
 * writes the hashes of each system into flake.nix, after a change of package-lock.json.
 */
import { createHash } from "node:crypto"
import {
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fill } from "./install.js"
import { Failure, isMain, root, run } from "./tool.js"

/**
 * A package in package-lock.json.
 *
 * @typedef {{
 *   readonly os?: ReadonlyArray<string>
 *   readonly cpu?: ReadonlyArray<string>
 *   readonly libc?: ReadonlyArray<string>
 *   readonly dependencies?: Record<string, string>
 *   readonly devDependencies?: Record<string, string>
 *   readonly peerDependencies?: Record<string, string>
 *   readonly optionalDependencies?: Record<string, string>
 * }} Package
 */

/** The packages in a folder's package-lock.json by their path. "" is the project itself. */
/** @type {(folder: string) => Record<string, Package>} */
const readLock = (folder) => JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8")).packages

/**
 * The packages that the flake lays out for a system, as paths from `folder`: those that every system can use, and of the
 * others those that the command loads and those that build `dist/`. What npm chooses among the rest may differ by machine.
 *
 * @param {string} folder
 * @param {string} os
 * @param {string} cpu
 */
export const laidOut = (folder, os, cpu) => {
  const packages = readLock(folder)
  const { dependencies, devDependencies } = packages[""] ?? {}
  const all = closure(packages, Object.keys({ ...dependencies, ...devDependencies }), os, cpu)
  const tools = closure(packages, ["esbuild", "typescript"], os, cpu)
  const portable = all.filter((path) => {
    const { cpu, libc, os } = packages[path] ?? {}
    return (os ?? cpu ?? libc) === undefined
  })
  return [...new Set([...portable, ...tools, ...nativePaths(folder, os, cpu)])]
}

/**
 * The packages that the command loads at run time: the project's optional dependencies, with theirs.
 *
 * @param {string} folder
 * @param {string} os
 * @param {string} cpu
 */
const nativePaths = (folder, os, cpu) => {
  const packages = readLock(folder)
  return closure(packages, Object.keys(packages[""]?.optionalDependencies ?? {}), os, cpu)
}

/**
 * The paths of packages and of all that they depend on, on one system.
 *
 * @param {Record<string, Package>} packages
 * @param {ReadonlyArray<string>} names
 * @param {string} os
 * @param {string} cpu
 */
const closure = (packages, names, os, cpu) => {
  /** @type {Set<string>} */
  const paths = new Set()
  /** @type {(name: string, from: string) => void} */
  const add = (name, from) => {
    const path = resolve(packages, name, from)
    const found = path === undefined ? undefined : packages[path]
    if (path === undefined || found === undefined || paths.has(path) || !runsOn(path, found, os, cpu)) return
    paths.add(path)
    for (const next of Object.keys({ ...found.dependencies, ...found.optionalDependencies, ...found.peerDependencies }))
      add(next, path)
  }
  for (const name of names) add(name, "")
  return [...paths]
}

/** Where a package finds another one: in its own node_modules, or in those of the folders above. */
/** @type {(packages: Record<string, Package>, name: string, from: string) => string | undefined} */
const resolve = (packages, name, from) => {
  const path = from === "" ? `node_modules/${name}` : `${from}/node_modules/${name}`
  if (packages[path] !== undefined) return path
  return from === ""
    ? undefined
    : resolve(packages, name, from.slice(0, Math.max(0, from.lastIndexOf("node_modules/") - 1)))
}

/** Node of nixpkgs uses glibc on Linux. Only the names of libsql's packages show which C library they are for. */
/** @type {(path: string, found: Package, os: string, cpu: string) => boolean} */
const runsOn = (path, found, os, cpu) =>
  (found.os?.includes(os) ?? true) &&
  (found.cpu?.includes(cpu) ?? true) &&
  (found.libc?.includes("glibc") ?? true) &&
  !/-musl(eabihf)?$/.test(path)

/**
 * Installs the packages of `laidOut` and no others: the same files wherever and whenever it is done.
 *
 * @param {string} folder
 * @param {string} os
 * @param {string} cpu
 */
const installModules = (folder, os, cpu) => {
  fill(folder, [`--os=${os}`, `--cpu=${cpu}`, "--libc=glibc"])
  const wanted = new Set(laidOut(folder, os, cpu))
  for (const path of [...Object.keys(readLock(folder)), "node_modules/.package-lock.json"]) {
    if (path !== "" && !wanted.has(path)) rmSync(join(folder, path), { recursive: true, force: true })
  }
  // npm does not fail when it cannot fetch an optional package.
  const missing = [...wanted].filter((path) => !existsSync(join(folder, path, "package.json")))
  if (missing.length > 0) throw new Failure(`npm did not install ${missing.join(", ")}`)
}

/**
 * Copies the packages that the command loads at run time.
 *
 * @param {string} os
 * @param {string} cpu
 * @param {string} target
 */
const copyNative = (os, cpu, target) => {
  for (const path of nativePaths(root, os, cpu)) {
    mkdirSync(join(target, path), { recursive: true })
    for (const name of readdirSync(join(root, path))) {
      // Packages within packages have paths of their own.
      if (name === "node_modules") continue
      cpSync(join(root, path, name), join(target, path, name), { recursive: true, dereference: true })
    }
  }
}

/**
 * A file tree as Nix archives it before it hashes: https://nixos.org/manual/nix/stable/protocols/nix-archive
 *
 * @param {string} path
 * @param {(bytes: Buffer) => void} write
 */
const archive = (path, write) => {
  const bytes = (/** @type {string | Buffer} */ value) => {
    const content = Buffer.from(value)
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(content.length))
    write(length)
    write(content)
    write(Buffer.alloc(-content.length & 7))
  }
  const texts = (/** @type {Array<string>} */ ...values) => values.forEach(bytes)
  const stat = lstatSync(path)
  texts("(", "type")
  if (stat.isSymbolicLink()) texts("symlink", "target", readlinkSync(path))
  else if (stat.isFile()) {
    texts("regular", ...((stat.mode & 0o100) === 0 ? [] : ["executable", ""]), "contents")
    bytes(readFileSync(path))
  } else {
    texts("directory")
    const names = readdirSync(path).toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    for (const name of names) {
      texts("entry", "(", "name", name, "node")
      archive(join(path, name), write)
      texts(")")
    }
  }
  texts(")")
}

/** @param {string} path */
const nixHash = (path) => {
  const hash = createHash("sha256")
  const write = (/** @type {Buffer} */ bytes) => void hash.update(bytes)
  write(Buffer.from("\r\0\0\0\0\0\0\0nix-archive-1\0\0\0", "latin1"))
  archive(path, write)
  return `sha256-${hash.digest("base64")}`
}

const update = () => {
  const file = join(root, "flake.nix")
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex")
  const systems = /os = "(\w+)"; cpu = "(\w+)"; hash = "[^"]*"/g
  const flake = readFileSync(file, "utf8")
    .replace(/lock = "\w*"/, `lock = "${lock}"`)
    .replace(systems, (_, os, cpu) => {
      const folder = mkdtempSync(join(tmpdir(), "nodepass-flake-"))
      try {
        for (const name of ["package.json", "package-lock.json"]) copyFileSync(join(root, name), join(folder, name))
        installModules(folder, os, cpu)
        for (const name of ["package.json", "package-lock.json"]) rmSync(join(folder, name))
        const hash = nixHash(folder)
        console.log(`${os} ${cpu} ${hash}`)
        return `os = "${os}"; cpu = "${cpu}"; hash = "${hash}"`
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    })
  writeFileSync(file, flake)
}

if (isMain(import.meta.url))
  await run(() => {
    const [action, os = "", cpu = "", target = ""] = process.argv.slice(2)
    if (action === "modules") installModules(root, os, cpu)
    else if (action === "native") copyNative(os, cpu, target)
    else update()
  })
