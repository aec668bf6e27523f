import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type ChildProcess, spawn } from "node:child_process"
import { randomInt } from "node:crypto"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { setTimeout } from "node:timers/promises"
import { isDeepStrictEqual } from "node:util"
import * as InstanceStore from "../../src/master/InstanceStore.js"
import * as NodeState from "../../src/node/store/NodeState.js"
import { runs } from "../Runs.js"
import { bundle } from "./command/Bundle.js"
import { all, apply, type Change } from "./command/StoreChange.js"

/** How often the process is stopped at a random instant. Every `stopsPerProcess` times it is killed instead of continued. */
const stops = runs(32, 960)
const stopsPerProcess = 30

/** In memory where possible: faster, and what a process has written survives it as on a disk. */
const place = Fs.existsSync("/dev/shm") ? "/dev/shm" : Os.tmpdir()

/** Stops the process: its files are then as a crash at this moment would leave them. */
const freeze = (child: ChildProcess) => {
  child.kill("SIGSTOP")
  const start = performance.now()
  for (;;) {
    const [, state = "none"] = /^State:\s+(\w)/m.exec(Fs.readFileSync(`/proc/${child.pid}/status`, "utf8")) ?? []
    if (state === "T") return
    if (!/[RSD]/.test(state)) throw new Error(`the process has exited: ${state}`)
    if (performance.now() - start > 60_000) throw new Error(`the process did not stop: ${state}`)
  }
}

describe.skipIf(process.platform !== "linux")("a store whose process is killed", () => {
  it("has every acknowledged change, and the unfinished one completely or not at all", async () => {
    const root = Fs.mkdtempSync(Path.join(place, "nodepass-stopped-"))
    const programs = Fs.mkdtempSync(Path.join(import.meta.dirname, "../../.dist-store-"))
    const program = Path.join(programs, "StoreChange.mjs")
    const [own, copy, journal] = ["own", "copy", "journal"].map((name) => Path.join(root, name)) as [
      string,
      string,
      string
    ]
    let child: ChildProcess | undefined
    try {
      await bundle(Path.join(import.meta.dirname, "command/StoreChange.ts"), program)
      const model = InstanceStore.make()
      let read = 0
      let pending: Change | undefined
      let acknowledged = 0
      let unacknowledged = 0
      /** Applies the acknowledged changes to the model. */
      const catchUp = async () => {
        const lines = Fs.existsSync(journal) ? Fs.readFileSync(journal, "utf8").split("\n").slice(0, -1) : []
        for (; read < lines.length; read++) {
          const line = lines[read] ?? ""
          if (line !== "done") pending = JSON.parse(line)
          else if (pending !== undefined) {
            await Effect.runPromise(apply(model, pending))
            pending = undefined
            acknowledged++
          }
        }
      }
      for (let stop = 0; stop < stops; stop++) {
        if (child === undefined) {
          child = spawn(process.execPath, [program, own, journal, `${stop * 100_000}`], {
            stdio: ["ignore", "inherit", "inherit"]
          })
          const before = read
          while (read === before) {
            if (child.exitCode !== null) throw new Error("the process has exited")
            await setTimeout(10)
            await catchUp()
          }
        }
        await setTimeout(randomInt(0, 15))
        freeze(child)
        await catchUp()
        Fs.rmSync(copy, { recursive: true, force: true })
        Fs.cpSync(own, copy, { recursive: true })
        const found = await Effect.runPromise(
          Effect.provide(
            Effect.flatMap(InstanceStore.InstanceStore, all),
            NodeState.layer(Option.some(Redacted.make(copy)))
          )
        )
        const without = await Effect.runPromise(all(model))
        if (pending !== undefined && !isDeepStrictEqual(found, without)) {
          unacknowledged++
          const next = InstanceStore.make()
          await Effect.runPromise(Effect.flatMap(model.backup, next.restore))
          await Effect.runPromise(apply(next, pending))
          assert.deepStrictEqual(found, await Effect.runPromise(all(next)), `stop ${stop}: ${JSON.stringify(pending)}`)
        } else assert.deepStrictEqual(found, without, `stop ${stop}`)

        if (stop % stopsPerProcess < stopsPerProcess - 1) {
          child.kill("SIGCONT")
          continue
        }
        const ended = once(child, "exit")
        child.kill("SIGKILL")
        await ended
        child = undefined
        // The next process starts with the files of this one.
        if (pending !== undefined) await Effect.runPromise(model.restore({ format: "nodepass-backup/1", ...found }))
        pending = undefined
      }
      console.log("acknowledged", acknowledged, "stored but not acknowledged", unacknowledged)
    } finally {
      child?.kill("SIGKILL")
      for (const folder of [root, programs]) Fs.rmSync(folder, { recursive: true })
    }
  })
})
