/**
 * Programs of the system, run as visitors and as targets.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import nodeProcess from "node:process"
import type { World } from "./Nodepass.js"

/** Where the program is, if this machine has it. Daemons are off the `PATH` of most users. */
export const find = (name: string): string | undefined =>
  [...(nodeProcess.env["PATH"] ?? "").split(Path.delimiter), "/usr/sbin", "/usr/local/sbin"]
    .map((folder) => Path.join(folder, name))
    .find((file) => Fs.existsSync(file))

/** Whether one of them is not on this machine. */
export const lacks = (...names: ReadonlyArray<string>): boolean => names.some((name) => find(name) === undefined)

/** Starts it, in the project's folder. */
export const begin = (world: World, name: string, args: ReadonlyArray<string>): ChildProcess =>
  world.own(
    spawn(find(name) ?? name, args, {
      cwd: Path.join(import.meta.dirname, "../../.."),
      stdio: ["ignore", "pipe", "pipe"]
    }),
    (child) => child.kill("SIGKILL")
  )

/** Runs it to its end and gives its standard output; fails unless the exit code is 0. */
export const run = async (world: World, name: string, args: ReadonlyArray<string>): Promise<string> => {
  const child = begin(world, name, args)
  let out = ""
  let err = ""
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (out += text))
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (err += text))
  const [code] = (await once(child, "close")) as [number | null]
  if (code !== 0) throw new Error(`${name} ${args.join(" ")} ended with ${code}:\n${out}\n${err}`)
  return out
}

/** Starts it and waits until its output matches `ready`; `ended` waits for its end. */
export const serve = async (
  world: World,
  name: string,
  args: ReadonlyArray<string>,
  ready: RegExp
): Promise<{ readonly ended: Promise<unknown> }> => {
  const child = begin(world, name, args)
  const ended = once(child, "close")
  let output = ""
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output += text
        if (ready.test(output)) resolve()
      })
    }
    ended.then(() => reject(new Error(`${name} ended:\n${output}`)), reject)
  })
  return { ended }
}

/** A folder of the test's own. */
export const folder = (world: World): string =>
  world.own(Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-program-")), (folder) =>
    Fs.rmSync(folder, { recursive: true, force: true })
  )
