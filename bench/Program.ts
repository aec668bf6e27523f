/**
 * Processes of a measurement: start, resource usage, end. None outlives this process.
 */
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import process from "node:process"

export interface Program {
  readonly pid: number
  readonly child: ChildProcess
  /** The last line of its output. */
  readonly lastLine: () => string
}

export interface Options {
  readonly env?: NodeJS.ProcessEnv | undefined
  /** Opens an IPC channel. Defaults to none. */
  readonly ipc?: boolean | undefined
}

const running = new Set<Program>()
process.on("exit", () => {
  for (const program of running) stop(program)
})
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130))

export const start = (command: string, args: ReadonlyArray<string>, options?: Options): Program => {
  const stdio = ["ignore", "pipe", "pipe", ...(options?.ipc === true ? (["ipc"] as const) : [])] as const
  const child = spawn(command, args, { env: options?.env ?? process.env, stdio: [...stdio] })
  let lastLine = ""
  const onText = (text: string) => (lastLine = text.trim().split("\n").at(-1) ?? lastLine)
  child.stdout?.setEncoding("utf8").on("data", onText)
  child.stderr?.setEncoding("utf8").on("data", onText)
  const program: Program = { pid: child.pid ?? 0, child, lastLine: () => lastLine }
  child.on("error", (error) => (lastLine = error.message)).on("exit", () => running.delete(program))
  running.add(program)
  return program
}

/** Kills a program and its children. */
export const stop = (program: Program) => {
  for (const pid of program.pid === 0 ? [] : tree(program.pid)) {
    try {
      process.kill(pid, "SIGKILL")
    } catch {
      // It has exited already.
    }
  }
  running.delete(program)
}

/** The first line of its output. */
export const line = (program: Program): Promise<string> =>
  new Promise((resolve, reject) => {
    program.child.stdout?.once("data", (text: string) => resolve(text.trim()))
    program.child.once("exit", (code) => reject(new Error(`exited with ${code}: ${program.lastLine()}`)))
  })

const read = (file: string) => {
  try {
    return Fs.readFileSync(file, "utf8")
  } catch {
    return ""
  }
}

/** A process and its descendants, as far as /proc shows them. */
const tree = (pid: number): ReadonlyArray<number> => {
  const children = read(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean)
  return [pid, ...children.flatMap((child) => tree(Number(child)))]
}

const sum = (values: ReadonlyArray<number>) => values.reduce((left, right) => left + right, 0)

/** CPU seconds of programs, user and system, in steps of 1/100 s. */
export const cpuSeconds = (programs: ReadonlyArray<Program>): number =>
  sum(
    programs
      .flatMap(({ pid }) => tree(pid))
      .map((pid) => {
        const fields = (/\) (.*)/.exec(read(`/proc/${pid}/stat`))?.[1] ?? "").split(" ")
        return (Number(fields[11] ?? Number.NaN) + Number(fields[12] ?? Number.NaN)) / 100
      })
  )

/** Resident memory of a program, in KiB. */
export const residentKiB = ({ pid }: Program): number =>
  Number(/VmRSS:\s+(\d+)/.exec(read(`/proc/${pid}/status`))?.[1] ?? Number.NaN)

export const descriptors = ({ pid }: Program): number => {
  try {
    return Fs.readdirSync(`/proc/${pid}/fd`).length
  } catch {
    return Number.NaN
  }
}

/** The limit of open files of a process. */
export const descriptorLimit = (): number =>
  Number(/Max open files\s+(\d+)/.exec(read("/proc/self/limits"))?.[1] ?? 1024)
