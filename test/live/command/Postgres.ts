/**
 * A PostgreSQL server for a test, if PostgreSQL is installed on this machine.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import nodeProcess from "node:process"
import { promisify } from "node:util"
import { freePort } from "./freePort.js"

export interface Postgres {
  /** The URL of an empty database; its only user needs no password. */
  readonly url: string
  /** Resolves when it accepts connections. */
  readonly start: () => Promise<void>
  /** Stops it without a shutdown, like a crash; committed data is there after the next start. */
  readonly stop: () => Promise<void>
  readonly close: () => Promise<void>
}

/** The folder with the programs of PostgreSQL, if installed. */
export const programs: string | undefined = [
  ...(nodeProcess.env["PATH"] ?? "").split(Path.delimiter),
  "/usr/local/bin",
  ...versions("/usr/lib/postgresql", "bin"),
  ...versions("/usr/local/opt", "bin")
].find((folder) => ["initdb", "postgres"].every((name) => Fs.existsSync(Path.join(folder, name))))
if (programs === undefined) console.log("PostgreSQL is not tested: initdb and postgres are not installed")

export const make = async (folder: string): Promise<Postgres> => {
  const data = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-postgres-"))
  const user = serverUser()
  if (user.uid !== undefined) Fs.chownSync(data, user.uid, user.gid ?? user.uid)
  const port = await freePort()
  await promisify(execFile)(
    Path.join(folder, "initdb"),
    ["-D", data, "-U", "nodepass", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
    { ...user, cwd: data }
  )
  let child: ChildProcess | undefined
  let ended: Promise<void> = Promise.resolve()
  const start = async () => {
    const settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    const process = spawn(
      Path.join(folder, "postgres"),
      ["-D", data, "-p", String(port), ...settings.flatMap((setting) => ["-c", setting])],
      { ...user, cwd: data, stdio: ["ignore", "ignore", "pipe"] }
    )
    child = process
    ended = new Promise((resolve) => process.once("close", () => resolve()))
    await new Promise<void>((resolve, reject) => {
      let output = ""
      process.stderr.setEncoding("utf8").on("data", (text: string) => {
        output += text
        if (output.includes("ready to accept connections")) resolve()
      })
      void ended.then(() => reject(new Error(`postgres ended:\n${output}`)))
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

/** The user that runs the server: PostgreSQL refuses to run as root. */
const serverUser = (): { readonly uid?: number; readonly gid?: number } => {
  if (nodeProcess.getuid?.() !== 0) return {}
  const accounts = Fs.readFileSync("/etc/passwd", "utf8")
  for (const name of ["postgres", "nobody"]) {
    const [, uid, gid] = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(accounts) ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  return {}
}
