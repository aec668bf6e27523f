import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"

/** A room of `src/` and the rooms it may import: each row names only rooms of rows above it, so there is no cycle. */
const rooms = new Map<string, ReadonlyArray<string>>([
  ["core", []],
  ["transport", ["core"]],
  ["url", ["core"]],
  ["wire", ["core", "transport"]],
  ["signal", ["core", "transport", "wire"]],
  ["pool", ["core", "transport", "wire", "signal"]],
  ["stream", ["core", "transport", "wire"]],
  ["relay", ["core", "transport", "wire", "pool", "stream"]],
  ["tunnel", ["core", "transport", "url", "wire", "signal", "pool", "stream", "relay"]],
  ["master", ["core", "transport", "url", "tunnel"]],
  ["cli", ["core", "transport", "url", "tunnel", "master"]],
  ["testing", ["core", "transport"]],
  ["page", ["master"]],
  ["node", []],
  ["node/file", ["core"]],
  ["node/socket", ["core", "transport", "node/file"]],
  ["node/store", ["core", "url", "tunnel", "master", "node/file"]],
  ["node/kernel/ffi", ["core", "node/socket"]],
  ["node/kernel/tls", ["transport", "node/socket", "node/kernel/ffi"]],
  ["node/kernel/reactor", ["relay", "node/kernel/ffi", "node/kernel/tls"]],
  [
    "node/kernel",
    ["core", "transport", "stream", "relay"].concat([
      "node",
      "node/socket",
      "node/kernel/ffi",
      "node/kernel/tls",
      "node/kernel/reactor"
    ])
  ],
  [
    "node/process",
    ["core", "transport", "url", "wire", "relay", "tunnel", "master", "cli"].concat([
      "node",
      "node/file",
      "node/socket",
      "node/store",
      "node/kernel"
    ])
  ]
])

const source = Path.join(import.meta.dirname, "../../src")
const modules = Fs.readdirSync(source, { recursive: true, encoding: "utf8" })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((name) => /\.tsx?$/.test(name))
  .toSorted()
const read = (name: string) => Fs.readFileSync(Path.join(source, name), "utf8")
const specifiersOf = (name: string) =>
  [...read(name).matchAll(/(?:\bfrom |^import |\bimport\()"([^"]+)"/gm)].map(([, from = ""]) => from)
const roomOf = (name: string) => Path.posix.dirname(name)
/** The modules of `src/` that a module imports. */
const importsOf = (name: string) =>
  specifiersOf(name)
    .filter((from) => /^\.\.?\/.*\.js$/.test(from))
    .map((from) => Path.posix.join(roomOf(name), from).replace(/\.js$/, ""))
/** What a tier publishes: it re-exports, and any room may be behind it. */
const isTier = (name: string) => ["index.ts", "node/index.ts", "master/index.ts", "testing/index.ts"].includes(name)
/** Where `node:*` may be imported, and the time of day, chance and promises come from. */
const isAdapter = (name: string) => name.startsWith("node/") || name.startsWith("page/")

describe("architecture", () => {
  it("every module is in a room", () => {
    const strays = modules.filter((name) => !isTier(name) && !rooms.has(roomOf(name)))
    assert.deepStrictEqual(strays, [])
  })

  it("rooms import only rooms of rows above them", () => {
    const above = new Set<string>()
    for (const [room, mayImport] of rooms) {
      for (const other of mayImport) assert.isTrue(above.has(other), `${room} may not import ${other}`)
      above.add(room)
    }
  })

  it.each(modules.filter((name) => !isTier(name)))("%s imports only what its room may", (name) => {
    const room = roomOf(name)
    for (const imported of importsOf(name)) {
      const other = roomOf(imported)
      assert.isTrue(other === room || rooms.get(room)?.includes(other), `${name} imports ${imported}`)
    }
  })

  it("no modules import each other in a circle", () => {
    const known = new Set(modules.map((name) => name.replace(/\.tsx?$/, "")))
    const done = new Set<string>()
    const visit = (module: string, path: ReadonlyArray<string>): void => {
      assert.isFalse(path.includes(module), [...path, module].join(" imports "))
      if (done.has(module) || !known.has(module)) return
      const name = modules.find((name) => name.replace(/\.tsx?$/, "") === module) ?? ""
      for (const imported of importsOf(name)) visit(imported, [...path, module])
      done.add(module)
    }
    for (const module of known) visit(module, [])
  })

  it.each(modules.filter(isTier))("%s only re-exports", (name) => {
    const code = read(name).replace(/^\/\*\*[^]*?\*\/\n/, "")
    for (const line of code.trim().split("\n")) assert.match(line, /^export \* as \w+ from "\.[^"]+\.js"$/)
  })

  it.each([...rooms].filter(([room]) => room !== "node"))("%s has a short README", (room) => {
    const lines = Fs.readFileSync(Path.join(source, room, "README.md"), "utf8")
      .trim()
      .split("\n")
    assert.isAtMost(lines.length, 15)
  })

  it.each(modules.filter((name) => !isAdapter(name)))("%s reaches the outside through Effect only", (name) => {
    // A hash is the same on every machine, so a simulation may have it from Node.
    const allowed = name.startsWith("testing/") ? ["node:crypto"] : []
    for (const from of specifiersOf(name)) {
      assert.isTrue(!from.startsWith("node:") || allowed.includes(from), `${name} imports ${from}`)
    }
    assert.notMatch(read(name), /\bDate\.now\(|\bMath\.random\(|\bsetTimeout\(|\bEffect\.promise\(|\bprocess\.\w/)
  })
})
