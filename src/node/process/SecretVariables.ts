/**
 * The environment variables that hold secrets: taken out of the environment when the process starts.
 *
 * Workers and child processes do not inherit them. Where the system lets a process write its own memory, as Linux does,
 * they are also overwritten in what /proc/PID/environ shows, which only the same user and root may read.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Fs from "node:fs"
import process from "node:process"

/** `NP_KEY`: the tunnel key. `NP_API_KEY`: the key of a master's API. */
export const names = ["NP_KEY", "NP_API_KEY"] as const

/** Reads the secrets that were taken, and all other variables from the environment. */
export const provider = (secrets: ReadonlyMap<string, string>): ConfigProvider.ConfigProvider =>
  ConfigProvider.orElse(ConfigProvider.fromMap(new Map(secrets)), () => ConfigProvider.fromEnv())

/** Removes the variables from the environment of this process, and returns their values. */
export const take = (): ReadonlyMap<string, string> => {
  const taken = new Map<string, string>()
  for (const name of names) {
    const value = process.env[name]
    if (value === undefined) continue
    taken.set(name, value)
    delete process.env[name]
  }
  if (taken.size > 0) overwrite([...taken.keys()])
  return taken
}

// internal

/** Writes zeros over the values in the memory where the kernel put the environment. Does nothing where that is refused. */
const overwrite = (names: ReadonlyArray<string>): void => {
  try {
    const [start, end] = bounds(Fs.readFileSync("/proc/self/stat", "latin1"))
    const memory = Fs.openSync("/proc/self/mem", "r+")
    try {
      const environment = Buffer.alloc(end - start)
      Fs.readSync(memory, environment, 0, environment.length, start)
      for (const { from, to } of valuesIn(environment, names)) {
        Fs.writeSync(memory, Buffer.alloc(to - from), 0, to - from, start + from)
      }
    } finally {
      Fs.closeSync(memory)
    }
  } catch {
    // Another system, or one that forbids it. Child processes do not inherit the variables in any case.
  }
}

/** The fields `env_start` and `env_end` of proc_pid_stat(5), the 50th and 51st. The name before them may have spaces. */
const bounds = (stat: string): readonly [start: number, end: number] => {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return [Number(fields[47]), Number(fields[48])]
}

/** Where the values of the variables are in the environment, `NAME=value` with a zero byte after each. */
const valuesIn = (environment: Buffer, names: ReadonlyArray<string>) => {
  const found: Array<{ readonly from: number; readonly to: number }> = []
  let at = 0
  for (const variable of environment.toString("latin1").split("\0")) {
    const name = names.find((name) => variable.startsWith(`${name}=`))
    if (name !== undefined) found.push({ from: at + name.length + 1, to: at + variable.length })
    at += variable.length + 1
  }
  return found
}
