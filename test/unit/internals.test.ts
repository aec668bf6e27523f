import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import process from "node:process"

const root = Path.join(import.meta.dirname, "../..")
const file = Path.join(root, "docs/internals.md")
const block = /(?<=<!-- modules -->\n)[^]*?(?=<!-- \/modules -->)/

/** The rooms in the order in which they build on each other. */
const rooms =
  "core transport url wire signal pool stream relay tunnel master cli testing page node/file node/socket node/store"
    .concat(" node/kernel/ffi node/kernel/tls node/kernel/reactor node/kernel node/process node .")
    .split(" ")

/** The first sentence of a module's header. */
const summaryOf = (path: string): string => {
  const [, header = ""] = /^\/\*\*\n([^]*?)\*\//.exec(Fs.readFileSync(path, "utf8")) ?? []
  const text = header
    .replaceAll(/^ \* ?/gm, "")
    .replaceAll(/\s+/g, " ")
    .trim()
  return /^.*?\.(?= |$)/.exec(text)?.[0] ?? text
}

const map = (): string =>
  rooms
    .map((room) => {
      const folder = Path.join(root, "src", room)
      const names = Fs.readdirSync(folder).filter((name) => /\.tsx?$/.test(name))
      const rows = names
        .toSorted()
        .map((name) => `| ${name.replace(/\.tsx?$/, "")} | ${summaryOf(Path.join(folder, name))} |\n`)
      const title = room === "." ? "src" : `src/${room}`
      return `### ${title}\n\n| module | what it is |\n| --- | --- |\n${rows.join("")}\n`
    })
    .join("")

describe("docs/internals.md", () => {
  it("describes every module by the first sentence of its header", () => {
    const text = Fs.readFileSync(file, "utf8")
    if (process.env["NODEPASS_WRITE"] !== undefined)
      Fs.writeFileSync(
        file,
        text.replace(block, () => `\n${map()}`)
      )
    assert.strictEqual(block.exec(Fs.readFileSync(file, "utf8"))?.[0], `\n${map()}`)
  })
})
