/**
 * The processes of a measurement (target and visitors), compiled into a temporary folder.
 */
import * as Esbuild from "esbuild"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import type { Job, Outcome } from "./load.js"
import * as Program from "./Program.js"

/** Removed when this process exits. */
export const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-bench-"))
process.on("exit", () => Fs.rmSync(folder, { recursive: true, force: true }))

/** Plain JavaScript, so that a pipe starts as fast as any Node program. */
await Esbuild.build({
  entryPoints: ["load", "pipe", "target"].map((name) => Path.join(import.meta.dirname, `${name}.ts`)),
  outdir: folder,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node20"
})

/** Starts one of the compiled programs. */
export const start = (
  name: "load" | "pipe" | "target",
  args: ReadonlyArray<string | number>,
  options?: Program.Options
): Program.Program => Program.start(process.execPath, [Path.join(folder, `${name}.mjs`), ...args.map(String)], options)

export interface Visitors {
  /** Runs a job. A job that exceeds its limit is killed with its process and counts as failed. */
  readonly run: (job: Job) => Promise<Outcome>
}

export const makeVisitors = (): Visitors => {
  let program = start("load", [], { ipc: true })
  const run = (job: Job) =>
    new Promise<Outcome>((resolve) => {
      const { child } = program
      const end = (outcome: Outcome) => {
        clearTimeout(limit)
        child.off("message", end).off("exit", fail)
        resolve(outcome)
      }
      const fail = () => {
        Program.stop(program)
        program = start("load", [], { ipc: true })
        end({ failed: 1 })
      }
      const limit = setTimeout(fail, ("millis" in job ? job.millis * 1.2 : 22_000) + 8000)
      child.on("message", end).on("exit", fail)
      child.send(job)
    })
  return { run }
}
