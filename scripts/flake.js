/**
 * What flake.nix knows of npm: `node scripts/flake.js OS CPU` installs what a build on that system needs,
 * `node scripts/flake.js` does so for every system and writes the hashes into flake.nix, as a new package-lock.json asks for.
 */
import { createHash } from "node:crypto"
import {
  copyFileSync,
  lstatSync,
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
import { root, run } from "./tool.js"

/**
 * A node_modules that is the same wherever and whenever it is made: of the programs made for one system, only the two
 * that build `dist/` stay.
 *
 * @param {string} folder
 * @param {string} os
 * @param {string} cpu
 */
const modules = (folder, os, cpu) => {
  fill(folder, [`--os=${os}`, `--cpu=${cpu}`, "--libc=glibc"])
  const { packages } = JSON.parse(readFileSync(join(folder, "package-lock.json"), "utf8"))
  const native = Object.keys(packages).filter((path) => packages[path].os ?? packages[path].cpu)
  const unused = native.filter((path) => !/^node_modules\/@(esbuild|typescript)\//.test(path))
  for (const path of [...unused, "node_modules/.package-lock.json"]) {
    rmSync(join(folder, path), { recursive: true, force: true })
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
        modules(folder, os, cpu)
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

await run(() => {
  const [os, cpu] = process.argv.slice(2)
  if (os !== undefined && cpu !== undefined) modules(root, os, cpu)
  else update()
})
