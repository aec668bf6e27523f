import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Path from "node:path"
import nodeProcess from "node:process"
import * as Here from "./command/Here.js"
import {
  echoing,
  makeWorld,
  type Nodepass,
  pause,
  type Run,
  type Start,
  tunnelKey,
  tunnelOf,
  type World
} from "./command/Nodepass.js"
import * as Program from "./command/Program.js"

const root = Path.join(import.meta.dirname, "../..")
const bin = Path.join(root, "bin/nodepass.js")

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

/** Runs a line of shell in which `nodepass` is the command. */
const shell = (line: string) =>
  new Promise<{ readonly code: number | string; readonly out: string; readonly log: string }>((resolve) => {
    const programs = Program.folder(world)
    Fs.chmodSync(programs, 0o755)
    const program = `#!/bin/sh\nexec '${nodeProcess.execPath}' '${bin}' "$@"\n`
    Fs.writeFileSync(Path.join(programs, "nodepass"), program, { mode: 0o755 })
    const env = { ...nodeProcess.env, PATH: `${programs}:${nodeProcess.env["PATH"] ?? ""}` }
    const child = execFile(
      "sh",
      ["-c", line],
      { cwd: root, env, timeout: 30_000, killSignal: "SIGKILL" },
      (_, out, log) =>
        // The shell itself complains about a deleted working folder.
        resolve({ code: child.exitCode ?? child.signalCode ?? -1, out, log: log.replaceAll(/^.*getcwd.*\n/gm, "") })
    )
  })

const serverUrl = async () =>
  `server://${tunnelKey}@127.0.0.1:${await world.freePort()}/127.0.0.1:${await world.freePort()}?mode=1`
const url = "'server://k@:10101/:8080'"

/**
 * Starts a process and waits until this holds, which must be before it prints anything. A busy machine may check too late,
 * so several processes are tried.
 */
const startUntil = async (args: ReadonlyArray<string>, holds: (pid: number) => boolean): Promise<Nodepass> => {
  for (let tries = 0; tries < 10; tries++) {
    const process = world.start(args)
    while (!holds(process.pid)) await new Promise(setImmediate)
    if (process.log() === "" && process.out() === "") return process
    await process.stop("SIGKILL")
  }
  return assert.fail("each process printed something before")
}

describe("the process", () => {
  it("continues after SIGHUP, SIGUSR1 and SIGUSR2, and logs that there is nothing to read again", async () => {
    const folder = Program.folder(world)
    const urls = [await serverUrl(), `master://127.0.0.1:${await world.freePort()}?state=${folder}`]
    for (const process of [...urls.map((url) => world.start([url])), world.start(["demo"])]) {
      await process.line(/waiting for a client|the API is ready|Open it/)
      for (const signal of ["SIGUSR1", "SIGUSR2", "SIGHUP"] as const) process.child.kill(signal)
      await process.line(/INFO {2}SIGHUP: there is nothing to read again/)
      assert.notInclude(process.log(), "Debugger")
      assert.strictEqual(await process.stop(), 0)
    }
  })

  it.skipIf(!Fs.existsSync("/proc/self/status"))("outlives SIGHUP while it starts", async () => {
    // The kernel shows which signals have a handler: bit 0 is SIGHUP.
    const server = await startUntil([await serverUrl()], (pid) => {
      const [, mask = "0"] = /^SigCgt:\s*(\w+)/m.exec(Fs.readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
      return (BigInt(`0x${mask}`) & 1n) === 1n
    })
    server.child.kill("SIGHUP")
    await server.line(/SIGHUP: there is nothing to read again/)
    assert.strictEqual(await server.stop(), 0)
  })

  it.skipIf(Program.lacks("python3"))("stops gracefully when its terminal hangs up", async () => {
    const log = Path.join(Program.folder(world), "log")
    const pty = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 2)
    os.execv(sys.argv[2], sys.argv[2:])
sys.stdin.readline()
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`
    const args = ["-c", pty, log, nodeProcess.execPath, bin, await serverUrl()]
    const child = world.own(spawn("python3", args, { stdio: ["pipe", "pipe", "inherit"] }), (child) =>
      child.kill("SIGKILL")
    )
    let out = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text))
    const read = () => (Fs.existsSync(log) ? Fs.readFileSync(log, "utf8") : "")
    while (!read().includes("waiting for a client")) await pause()
    child.stdin.end("\n")
    await once(child, "close")
    assert.strictEqual(out.trim(), "0")
    assert.match(read(), /INFO {2}stopped\n$/)
  })

  it.skipIf(!Fs.existsSync("/proc/self/cmdline"))("masks its arguments before it loads anything", async () => {
    for (const args of [[await serverUrl()], ["info", "--master", "http://127.0.0.1:9/api/v1", "--key", tunnelKey]]) {
      const process = await startUntil(
        args,
        (pid) => !Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(tunnelKey)
      )
      process.child.kill("SIGKILL")
      await process.ended
    }
  })
})

describe("the key in NP_KEY", () => {
  it.skipIf(!Fs.existsSync("/proc/self/environ"))("is used, and not visible in /proc", async () => {
    const url = (await serverUrl()).replace(`${tunnelKey}@`, "")
    const process = world.start([url], { NP_KEY: tunnelKey })
    await process.line(/waiting for a client/)
    const environment = Fs.readFileSync(`/proc/${process.pid}/environ`, "utf8")
    assert.match(environment, /(^|\0)PATH=./)
    assert.notInclude(environment, tunnelKey)
    assert.notMatch(process.log(), /WARN/)
    assert.strictEqual(await process.stop(), 0)
  })
})

describe("a stop on request", () => {
  it.each(["server", "client"] as const)("is no warning: Ctrl-C on the %s", async (side) => {
    const { port: target } = await world.listen(echoing)
    const here = Here.starter(world)
    let process: Nodepass | undefined
    const start: Start<Run> = (args) => (process = world.start(args))
    const starts = side === "server" ? { server: start, client: here } : { server: here, client: start }
    const { client, server } = await tunnelOf<Run, Run>({ target, receiver: "server" }, starts)
    await server.line(/client connected/)
    const [stopped, other] = side === "server" ? [server, client] : [client, server]
    assert.strictEqual(await process?.stop("SIGINT"), 0)
    assert.match(await other.line(/the peer ended the session/), / INFO /)
    assert.notMatch(stopped.log(), /WARN|ERROR/, stopped.log())
    assert.match(stopped.log(), /INFO {2}stopped\n$/)
  })
})

describe("standard output", () => {
  it.skipIf(!Fs.existsSync("/dev/full")).each(["--version", "--help", `check ${url}`])(
    "that is full makes nodepass %s fail",
    async (args) => {
      const { code, log } = await shell(`nodepass ${args} > /dev/full`)
      assert.deepStrictEqual([code, log], [1, "nodepass: standard output: no space left on the device\n"])
    }
  )

  it.each(["--version", `check ${url}`])("that has lost its reader makes nodepass %s fail in silence", async (args) => {
    const { log, out } = await shell(`{ sleep 1; nodepass ${args}; echo $? >&2; } | true`)
    assert.deepStrictEqual([out, log], ["", "1\n"])
  })

  it("and standard error may be closed from the start", async () => {
    assert.strictEqual((await shell(`nodepass check ${url} >&- 2>&-`)).code, 0)
    assert.strictEqual((await shell("nodepass check nonsense >&- 2>&-")).code, 2)
  })
})

describe("folders that cannot be used", () => {
  const master = "master://127.0.0.1:0"
  const profileArgs = ["profile", "--master", "http://127.0.0.1:9/api/v1", "--key", "k"]
  const profile = `nodepass ${profileArgs.join(" ")}`
  const isRoot = nodeProcess.getuid?.() === 0
  // A user that the system does not know, without a home.
  const asNobody = `setpriv --reuid 4242 --regid 4242 --clear-groups env -u HOME -u NP_STATE_DIR -u XDG_STATE_HOME -u XDG_CONFIG_HOME`
  /** Runs in a working folder that is deleted first. */
  const inDeleted = (line: string) => `mkdir "$T/gone"; cd "$T/gone"; rmdir "$T/gone"; ${line}`

  it.each([
    [inDeleted(`nodepass '${master}?state=x'`), /^nodepass: state x: x is relative to the working folder, which does/],
    [inDeleted("nodepass 'server://k@127.0.0.1:9/127.0.0.1:8?tls=2&crt=c&key=k'"), /^nodepass: crt=c: cannot be read/],
    [inDeleted(`XDG_CONFIG_HOME=x ${profile}`), /^nodepass: profile x\/nodepass\/profile.json: cannot be saved/],
    [`HOME="$T/file" nodepass ${master}`, /file\/\.local: its parent is not a folder$/]
  ] as const)("make %j fail with one sentence and exit code 1", (line, message) => fails(shellIn(line), message))

  const inFile = { XDG_CONFIG_HOME: "$T/file" }
  it.each([
    [[`${master}?state=$T/file`], {}, /^nodepass: state \S+: \S+\/file is not a folder$/],
    [profileArgs, inFile, /^nodepass: profile \S+: cannot be saved: its parent is not a folder$/],
    [profileArgs, {}, /^nodepass: profile: expected the folder for it in XDG_CONFIG_HOME or/]
  ] as ReadonlyArray<Attempt>)("make %j fail with %j", (...attempt) => fails(runHere(attempt), attempt[2]))

  const inProc = { XDG_CONFIG_HOME: "/proc/x" }
  it.skipIf(!Fs.existsSync("/proc/self")).each([
    [[`${master}?state=/proc/x/y`], {}, /^nodepass: state \/proc\/x\/y: cannot make the folder \/proc\/x: /],
    [[master], { NP_STATE_DIR: "/proc/x" }, /^nodepass: state \S+: cannot make the folder \/proc\/x: /],
    [
      profileArgs,
      inProc,
      /^nodepass: profile \S+: cannot be saved: cannot make the folder \/proc\/x: this file system cannot hold it$/
    ]
  ] as ReadonlyArray<Attempt>)("in /proc make %j fail with %j instead of trying for ever", (...attempt) =>
    fails(runHere(attempt), attempt[2])
  )

  it.skipIf(!isRoot || Program.lacks("setpriv")).each([
    [`${asNobody} nodepass ${master}`, /^nodepass: state in the home folder: user 4242 has no home; set HOME/],
    [`${asNobody} nodepass '${master}?state=/root/x/y'`, /: no permission$/],
    [`${asNobody} XDG_CONFIG_HOME=/root ${profile}`, /^nodepass: profile \S+: cannot be saved: .*no permission$/],
    [`mkdir "$T/s"; ${asNobody} nodepass "${master}?state=$T/s"`, /: cannot write to the folder \S+: no permission$/]
  ] as const)("make %j fail for a user without rights or home", (line, message) => fails(shellIn(line), message))

  type Attempt = readonly [args: ReadonlyArray<string>, env: Readonly<Record<string, string>>, message: RegExp]

  const shellIn = (line: string) => (folder: string) => shell(`T='${folder}'; ${line}`)

  const runHere =
    ([args, env]: Attempt) =>
    async (folder: string) => {
      const inFolder = (text: string) => text.replace("$T", folder)
      const own = Object.entries(env).map(([name, value]) => [name, inFolder(value)])
      const { ended, log, out } = Here.starter(world)(args.map(inFolder), Object.fromEntries(own))
      return { code: await ended, out: out(), log: log() }
    }

  const fails = async (run: (folder: string) => ReturnType<typeof shell>, message: RegExp) => {
    const folder = Program.folder(world)
    Fs.chmodSync(folder, 0o755)
    Fs.writeFileSync(Path.join(folder, "file"), "")
    const { code, log, out } = await run(folder)
    assert.match(log.trimEnd(), message)
    assert.strictEqual(log.trimEnd().split("\n").length, 1, log)
    assert.deepStrictEqual([code, out], [1, ""])
  }
})
