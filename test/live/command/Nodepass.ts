/**
 * Runs the built command in processes, with targets and visitors around it. Every wait is for an event.
 */
import { type ChildProcess, spawn } from "node:child_process"
import * as Crypto from "node:crypto"
import { EventEmitter, once } from "node:events"
import * as Net from "node:net"
import * as Path from "node:path"
import nodeProcess from "node:process"
import { freePort } from "./freePort.js"

const root = Path.join(import.meta.dirname, "../../..")

/** A command that runs: here a process, in `Here` in the process of the tests. */
export interface Run {
  /** Its standard error so far. */
  readonly log: () => string
  /** Its standard output so far. */
  readonly out: () => string
  /** Waits for the first line, of either output, that matches. Fails when the command ends before. */
  readonly line: (pattern: RegExp) => Promise<string>
  /** Waits until the log, past lines included, matches. Fails when the command ends before. */
  readonly logged: (pattern: RegExp) => Promise<RegExpExecArray>
  /** Stops it gracefully and waits for the end: its exit code. */
  readonly stop: () => Promise<number | string>
  readonly ended: Promise<number | string>
}

export interface Nodepass extends Run {
  readonly child: ChildProcess
  readonly pid: number
  /** Sends the signal and waits for the end: its exit code, or the signal that ended it. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | string>
}

/** The outputs of a command, to which `write` adds. `end` is called once no more comes. */
export const makeOutputs = () => {
  const texts = { log: "", out: "" }
  const changes = new EventEmitter().setMaxListeners(0)
  let isOver = false
  const until = async <A>(find: () => A | null | undefined, pattern: RegExp): Promise<A> => {
    for (let found = find(); ; found = find()) {
      if (found !== null && found !== undefined) return found
      if (isOver) throw new Error(`ended without ${pattern}:\n${texts.log}`)
      await once(changes, "change")
    }
  }
  return {
    write: (to: "log" | "out", text: string) => {
      texts[to] += text
      changes.emit("change")
    },
    end: () => {
      isOver = true
      changes.emit("change")
    },
    log: () => texts.log,
    out: () => texts.out,
    line: (pattern: RegExp) =>
      until(() => `${texts.log}${texts.out}`.split("\n").find((line) => pattern.test(line)), pattern),
    logged: (pattern: RegExp) => until(() => pattern.exec(texts.log), pattern)
  }
}

/** The key of `tunnel`: no start warns of it. */
export const tunnelKey = "q3f7n5x2k6w4m2z7t5r3b6h4cd"

/** The processes and sockets of one test. `close` ends all of them. */
export const makeWorld = () => {
  const closers: Array<() => unknown> = []
  const own = <A>(value: A, close: (value: A) => unknown): A => {
    closers.push(() => close(value))
    return value
  }

  const start = (
    args: ReadonlyArray<string>,
    env?: Readonly<Record<string, string>>,
    program = "bin/nodepass.js"
  ): Nodepass => {
    const child = own(
      spawn(nodeProcess.execPath, [program, ...args], {
        cwd: root,
        env: { ...nodeProcess.env, ...env },
        stdio: ["ignore", "pipe", "pipe"]
      }),
      (child) => child.kill("SIGKILL")
    )
    const { end, write, ...outputs } = makeOutputs()
    const ended = new Promise<number | string>((resolve) =>
      child.once("close", (code, signal) => {
        resolve(code ?? signal ?? -1)
        end()
      })
    )
    child.stdout.setEncoding("utf8").on("data", (text: string) => write("out", text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => write("log", text))
    return {
      ...outputs,
      child,
      pid: child.pid ?? 0,
      ended,
      stop: (signal = "SIGTERM") => {
        child.kill(signal)
        return ended
      }
    }
  }

  /** A server on a free loopback port. */
  const listen = async (
    handler: (socket: Net.Socket) => void,
    port = 0
  ): Promise<{ readonly port: number; readonly close: () => void }> => {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket)
      socket.on("error", () => {}).on("close", () => sockets.delete(socket))
      handler(socket)
    })
    const close = () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
    own(server, close)
    server.listen({ port, host: "127.0.0.1", backlog: 4096 })
    await once(server, "listening")
    const address = server.address()
    return { port: typeof address === "object" && address !== null ? address.port : 0, close }
  }

  const connect = (port: number): Net.Socket => {
    const socket = own(Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }), (socket) => socket.destroy())
    return socket.on("error", () => {})
  }

  const close = async () => {
    await Promise.all(closers.toReversed().map((close) => close()))
  }

  return { own, start, listen, connect, freePort, close }
}

export type World = ReturnType<typeof makeWorld>

/** A short pause between two looks where no event exists. A loop without it takes a core from what it waits for. */
export const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))

/** The API key that a master prints at its first start, before it listens. Returned once the API answers at the port. */
export const apiKeyOf = async ({ ended, line, log }: Run, port: number): Promise<string> => {
  const [, key = ""] = /^API key: (\w+)/.exec(await line(/^API key: /)) ?? []
  const answers = () =>
    fetch(`http://127.0.0.1:${port}/health`).then(
      () => true,
      () => false
    )
  let isOver = false
  void ended.then(() => (isOver = true))
  while (!(await answers())) {
    if (isOver) throw new Error(log())
    await pause()
  }
  return key
}

/** Answers each question, once it has ended, with `re:` and the question. */
export const answering = (socket: Net.Socket) => {
  const parts: Array<Buffer> = [Buffer.from("re:")]
  socket.on("data", (part: Buffer) => parts.push(part)).on("end", () => socket.end(Buffer.concat(parts)))
}

/** Echoes at once. */
export const echoing = (socket: Net.Socket) => {
  socket.pipe(socket)
}

/** Reads until the peer half-closes; fails on a reset. */
export const readAll = (socket: Net.Socket): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const parts: Array<Buffer> = []
    socket
      .on("data", (part: Buffer) => parts.push(part))
      .on("end", () => resolve(Buffer.concat(parts)))
      .on("error", reject)
      .on("close", () => reject(new Error("closed")))
  })

/** How the connection ends: the code of its error, or `end` for a half-close. */
export const fate = (socket: Net.Socket): Promise<string> =>
  new Promise((resolve) => {
    socket
      .on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "?"))
      .on("end", () => resolve("end"))
      .on("close", () => resolve("closed"))
      .resume()
  })

/** Asks an `answering` target. */
export const ask = (world: World, port: number, question: string | Buffer): Promise<Buffer> => {
  const socket = world.connect(port)
  socket.end(question)
  return readAll(socket)
}

export const digest = (bytes: Buffer): string => Crypto.createHash("sha256").update(bytes).digest("hex")

export interface TunnelOptions {
  /** A loopback port, or the text of the URL. */
  readonly target: number | string
  readonly receiver: "server" | "client"
  /** Parameters of both sides or of one, each with a leading `&`. */
  readonly query?: string
  readonly serverQuery?: string
  readonly clientQuery?: string
  readonly env?: Readonly<Record<string, string>>
  /** The line of the client to wait for. Defaults to the one that it is connected. */
  readonly until?: RegExp
  /** Starts a proxy in front of the tunnel port, and gives the port that the client connects to. Defaults to none. */
  readonly through?: (tunnelPort: number) => Promise<number>
}

/** Starts a command with these arguments and environment variables. */
export type Start<A extends Run> = (args: ReadonlyArray<string>, env?: Readonly<Record<string, string>>) => A

/** Starts a server and a client, waits until they are connected, and gives the port that visitors connect to. */
export const tunnelOf = async <Server extends Run, Client extends Run>(
  options: TunnelOptions,
  starts: { readonly server: Start<Server>; readonly client: Start<Client> }
) => {
  const tunnelPort = await freePort()
  const port = await freePort()
  const { clientQuery = "", env, query = "", receiver, serverQuery = "", target, until = / connected / } = options
  const reachedBy = (await options.through?.(tunnelPort)) ?? tunnelPort
  const visitors = `127.0.0.1:${port}`
  const dialled = typeof target === "string" ? target : `127.0.0.1:${target}`
  const [serverTarget, clientTarget, mode] = receiver === "server" ? [visitors, dialled, 1] : [dialled, visitors, 2]
  const serverUrl = `server://${tunnelKey}@127.0.0.1:${tunnelPort}/${serverTarget}?mode=${mode}${query}${serverQuery}`
  const clientUrl = `client://${tunnelKey}@127.0.0.1:${reachedBy}/${clientTarget}?mode=2${query}${clientQuery}`
  const startServer = () => starts.server([serverUrl], env)
  const startClient = () => starts.client([clientUrl], env)
  const server = startServer()
  await server.line(/waiting for a client/)
  const client = startClient()
  await client.line(until)
  return { server, client, port, tunnelPort, serverUrl, clientUrl, startServer, startClient }
}

/** A tunnel of two processes. */
export const tunnel = (world: World, options: TunnelOptions) =>
  tunnelOf(options, { server: world.start, client: world.start })
