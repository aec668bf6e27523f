import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile, execFileSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as NodeWrittenFile from "../../src/node/file/NodeWrittenFile.js"

const run = promisify(execFile)

let folder: string
beforeEach(() => {
  folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-written-"))
})
afterEach(() => Fs.rmSync(folder, { recursive: true }))

const at = (name: string) => Path.join(folder, name)
const write = (file: string, text = "new") =>
  Effect.runPromise(
    Effect.match(NodeWrittenFile.write(file, text), {
      onSuccess: () => "written",
      onFailure: ({ message }) => message.replace(file, "FILE").replaceAll(folder, "FOLDER")
    })
  )
const read = (name: string) => Fs.readFileSync(at(name), "utf8")
const modeOf = (name: string) => Fs.statSync(at(name)).mode & 0o777

describe("a file that a user names", () => {
  it("is made with its folder when it is missing, for its user only", async () => {
    assert.strictEqual(await write(at("a/b/file")), "written")
    assert.deepStrictEqual([read("a/b/file"), modeOf("a/b/file"), modeOf("a")], ["new", 0o600, 0o700])
  })

  it("is replaced in one step when it is a regular file: whoever has it open keeps the old one", async () => {
    Fs.writeFileSync(at("file"), "old and longer", { mode: 0o644 })
    const open = Fs.openSync(at("file"), "r")
    assert.strictEqual(await write(at("file")), "written")
    assert.strictEqual(Fs.readFileSync(open, "utf8"), "old and longer")
    Fs.closeSync(open)
    assert.deepStrictEqual([read("file"), modeOf("file"), Fs.readdirSync(folder)], ["new", 0o600, ["file"]])
  })

  it.each([["target"], ["missing"]])("stays a link, and what it leads to gets the text: %s", async (name) => {
    if (name === "target") Fs.writeFileSync(at(name), "old")
    Fs.symlinkSync(name, at("second"))
    Fs.symlinkSync(at("second"), at("first"))
    assert.strictEqual(await write(at("first")), "written")
    assert.strictEqual(read(name), "new")
    assert.deepStrictEqual([Fs.readlinkSync(at("first")), Fs.readlinkSync(at("second"))], [at("second"), name])
  })

  it.skipIf(!Fs.existsSync("/dev/full"))("gets the text when it is a device, which stays one", async () => {
    Fs.symlinkSync("/dev/null", at("null"))
    assert.strictEqual(await write(at("null")), "written")
    assert.isTrue(Fs.statSync("/dev/null").isCharacterDevice())
    assert.isTrue(Fs.lstatSync(at("null")).isSymbolicLink())
    assert.strictEqual(await write("/dev/full"), "FILE: cannot be written: no space left on the device")
  })

  it.skipIf(!Fs.existsSync("/proc/self/fd"))("gets the text when it is an open file of a process", async () => {
    Fs.writeFileSync(at("file"), "old and longer")
    const { ino } = Fs.statSync(at("file"))
    const open = Fs.openSync(at("file"), "r+")
    assert.strictEqual(await write(`/proc/self/fd/${open}`), "written")
    Fs.closeSync(open)
    assert.deepStrictEqual([read("file"), Fs.statSync(at("file")).ino], ["new", ino])
  })

  it.skipIf(process.platform === "win32")("gets the text when it is a pipe, more than the pipe holds", async () => {
    execFileSync("mkfifo", [at("pipe")])
    assert.strictEqual(await write(at("pipe")), "FILE: cannot be written: no process reads this pipe")
    const text = "x".repeat(300_000)
    const shell = run("sh", ["-c", `cat '${at("pipe")}' | wc -c`])
    let outcome = await write(at("pipe"), text)
    while (outcome.endsWith("no process reads this pipe")) outcome = await write(at("pipe"), text)
    assert.deepStrictEqual([outcome, (await shell).stdout.trim()], ["written", "300000"])
    assert.isTrue(Fs.statSync(at("pipe")).isFIFO())
  })

  it("is refused when it is a folder, a socket or a circle of links, with one clause", async () => {
    const server = Net.createServer().listen(at("socket"))
    await once(server, "listening")
    Fs.symlinkSync("b", at("a"))
    Fs.symlinkSync("a", at("b"))
    Fs.writeFileSync(at("file"), "")
    assert.deepStrictEqual(
      await Promise.all(
        [folder, at("socket"), at("a"), at("file/below"), at("x".repeat(300))].map((file) => write(file))
      ),
      [
        "FILE: cannot be written: it is a folder",
        "FILE: cannot be written: it is a socket",
        "FILE: cannot be written: too many symbolic links",
        "FILE: cannot be written: its parent is not a folder",
        "FILE: cannot be written: its name is too long"
      ]
    )
    server.close()
  })
})
