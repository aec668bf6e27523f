import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import nodeProcess from "node:process"
import * as Here from "./command/Here.js"
import { apiKeyOf, makeWorld, pause, type World } from "./command/Nodepass.js"
import * as Program from "./command/Program.js"

const bin = Path.join(import.meta.dirname, "../../bin/nodepass.js")

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

/** Runs a line of shell, in which `"$@"` is the command, and gives its exit code and its standard error. */
const shell = async (line: string, args: ReadonlyArray<string>) => {
  const child = world.own(
    spawn("sh", ["-c", line, "sh", nodeProcess.execPath, bin, ...args], { stdio: ["ignore", "inherit", "pipe"] }),
    (child) => child.kill("SIGKILL")
  )
  let log = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => (log += text))
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve))
  return { code, log }
}

describe("the API key", () => {
  it("is not lost when standard output is full or closed, can be replaced beside a running master, and is in a backup", async () => {
    const state = Path.join(Program.folder(world), "state")
    const port = await world.freePort()
    const url = `master://127.0.0.1:${port}?state=${state}&log=warn`
    const reasons = [
      [`exec "$@" >&-`, /it is closed, or the null device/],
      ...(Fs.existsSync("/dev/full") ? ([[`exec "$@" > /dev/full`, /no space left on the device/]] as const) : []),
      [`"$@" | true; exit 1`, /\n|^$/]
    ] as const
    for (const [line, reason] of reasons) {
      const { code, log } = await shell(line, [url])
      assert.strictEqual(code, 1)
      assert.match(log, reason)
      assert.isAtMost(log.trimEnd().split("\n").length, 1)
    }

    const master = world.start([url], { NP_REPORT_INTERVAL: "100ms" })
    const first = await apiKeyOf(master, port)
    const status = async (key: string) =>
      (await fetch(`http://127.0.0.1:${port}/api/v1/info`, { headers: { "x-api-key": key } })).status
    assert.strictEqual(await status(first), 200)
    const command = world.start(["key", "--state", state])
    assert.strictEqual(await command.ended, 0)
    const second = command.out().trimEnd()
    assert.match(second, /^[0-9a-f]{32}$/)
    while ((await status(first)) === 200) await pause()
    assert.strictEqual(await status(second), 200)
    assert.strictEqual(await master.stop(), 0)

    const next = world.start([url])
    const third = world.start(["key", "--state", state])
    const missing = Here.starter(world)(["key", "--state", `${state}/x`])
    assert.strictEqual(await third.ended, 0)
    assert.strictEqual(await missing.ended, 1)
    assert.match(missing.log(), /^nodepass: state \S+\/x\/nodepass.db: not found\n$/)
    const call = () => status(third.out().trimEnd()).catch(() => 0)
    while ((await call()) !== 200) await pause()
    assert.strictEqual(await next.stop(), 0)
    assert.notInclude(next.out(), "API key")

    // Its backup goes through pipes into another state.
    const copy = `"$@" backup - --state '${state}' | "$@" restore - --state '${state}-2'`
    assert.deepStrictEqual(await shell(copy, []), { code: 0, log: "" })
    const backup = Here.starter(world)(["backup", `${state}.json`, "--state", `${state}-2`])
    assert.deepStrictEqual([await backup.ended, backup.log()], [0, ""])
    assert.match(Fs.readFileSync(`${state}.json`, "utf8"), /"keyHash": "[0-9a-f]{64}"/)
  })
})
