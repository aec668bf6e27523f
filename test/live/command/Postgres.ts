/**
 * A PostgreSQL server of the test's own, where this machine has the programs for one.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import nodeProcess from "node:process"
import { promisify } from "node:util"
import { freePort } from "./freePort.js"

export interface Postgres {
  /** Of an empty database, whose one user needs no password. */
  readonly url: string
  /** Resolves once it takes connections. */
  readonly start: () => Promise<void>
  /** Ends it as a crash would; what was committed is there when it is started again. */
  readonly stop: () => Promise<void>
  readonly close: () => Promise<void>
}

/** The folder of its programs, if any. */
export const found: string | undefined = [
  ...(nodeProcess.env["PATH"] ?? "").split(Path.delimiter),
  "/usr/local/bin",
  ...versions("/usr/lib/postgresql", "bin"),
  ...versions("/usr/local/opt", "bin")
].find((folder) => ["initdb", "postgres"].every((name) => Fs.existsSync(Path.join(folder, name))))
if (found === undefined) console.log("PostgreSQL is not tested: there is no initdb and postgres here")

export const make = async (folder: string): Promise<Postgres> => {
  const data = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-postgres-"))
  const who = identity()
  if (who.uid !== undefined) Fs.chownSync(data, who.uid, who.gid ?? who.uid)
  const port = await freePort()
  await promisify(execFile)(
    Path.join(folder, "initdb"),
    ["-D", data, "-U", "nodepass", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
    { ...who, cwd: data }
  )
  let child: ChildProcess | undefined
  let ended: Promise<void> = Promise.resolve()
  const start = async () => {
    const settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    const process = spawn(
      Path.join(folder, "postgres"),
      ["-D", data, "-p", String(port), ...settings.flatMap((setting) => ["-c", setting])],
      { ...who, cwd: data, stdio: ["ignore", "ignore", "pipe"] }
    )
    child = process
    ended = new Promise((resolve) => process.once("close", () => resolve()))
    await new Promise<void>((resolve, reject) => {
      let said = ""
      process.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text
        if (said.includes("ready to accept connections")) resolve()
      })
      void ended.then(() => reject(new Error(`postgres ended:\n${said}`)))
    })
  }
  const stop = async () => {
    child?.kill("SIGQUIT")
    await ended
  }
  return {
    url: `postgres://nodepass@127.0.0.1:${port}/postgres`,
    start,
    stop,
    close: async () => {
      await stop()
      Fs.rmSync(data, { recursive: true, force: true })
    }
  }
}

// internal

function versions(folder: string, sub: string): ReadonlyArray<string> {
  return Fs.existsSync(folder) ? Fs.readdirSync(folder).map((name) => Path.join(folder, name, sub)) : []
}

/** It will not run as root: then it is somebody who may do nothing else. */
const identity = (): { readonly uid?: number; readonly gid?: number } => {
  if (nodeProcess.getuid?.() !== 0) return {}
  const accounts = Fs.readFileSync("/etc/passwd", "utf8")
  for (const name of ["postgres", "nobody"]) {
    const [, uid, gid] = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(accounts) ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  return {}
}
