import { afterEach, assert, beforeEach, describe, it } from "vitest"
import * as Crypto from "node:crypto"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Http from "node:http"
import type * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Here from "./command/Here.js"
import { digest, makeWorld, readAll, type World } from "./command/Nodepass.js"
import { folder, lacks, run, serve } from "./command/Program.js"
import { listenUdp } from "./command/Udp.js"

let world: World
beforeEach(() => {
  world = makeWorld()
})
afterEach(() => world.close())

/** Both directions with each TLS mode. */
const ways = [
  ["server", 0],
  ["client", 0],
  ["server", 1],
  ["client", 1]
] as const

/** Each direction once, with and without TLS once. */
const twoWays = [ways[0], ways[3]] as const
const otherWays = [ways[1], ways[2]] as const

const title = "visitors at the %s, tls=%i"

/** Uses a pool that has to grow. */
const through = (target: number, receiver: "server" | "client", tls: number) =>
  Here.tunnel(world, { target, receiver, query: `&tls=${tls}`, clientQuery: "&min=8" })

describe.skipIf(lacks("iperf3"))("iperf3", () => {
  interface Sum {
    readonly bytes: number
    readonly bits_per_second: number
    readonly lost_percent?: number
    readonly packets?: number
  }
  interface Report {
    readonly error?: string
    readonly end: { readonly sum_received?: Sum; readonly sum?: Sum }
  }

  it.each(twoWays)(
    `carries four TCP connections both ways, and loses less than 5 %% of UDP at 20 Mbit/s, ${title}`,
    async (receiver, tls) => {
      const target = await world.freePort()
      const listens = ["-s", "-1", "-B", "127.0.0.1", "-p", String(target), "--forceflush"]
      const { port } = await through(target, receiver, tls)

      const measure = async (...args: ReadonlyArray<string>): Promise<Sum> => {
        // Each has its own server: iperf3 refuses a client until it is done with the previous one.
        const { ended } = await serve(world, "iperf3", listens, /Server listening/)
        const out = await run(world, "iperf3", ["-c", "127.0.0.1", "-p", String(port), "-J", ...args])
        const { end, error } = JSON.parse(out) as Report
        assert.strictEqual(error, undefined)
        await ended
        const sum = end.sum_received ?? end.sum
        if (sum === undefined) return assert.fail(out)
        const lost = sum.lost_percent === undefined ? "" : `, ${sum.packets} datagrams, ${sum.lost_percent} % lost`
        console.log(`iperf3 ${args.join(" ")} tls=${tls}: ${Math.round(sum.bits_per_second / 1e6)} Mbit/s${lost}`)
        return end.sum ?? sum
      }
      // iperf3 reports when it has sent its 32 MiB; most of them may still be in flight.
      assert.isAbove((await measure("-P", "4", "-n", "32M")).bytes, 1 << 20)
      assert.isAbove((await measure("-P", "4", "-n", "32M", "-R")).bytes, 1 << 20)
      const { lost_percent: lost = 100, packets = 0 } = await measure("-u", "-b", "20M", "-l", "1400", "-t", "1")
      assert.isAbove(packets, 1000)
      assert.isBelow(lost, 5)
    }
  )
})

describe.skipIf(lacks("dig"))("dig", () => {
  /** The response has as many addresses as the first label says; over UDP it is truncated to 512 bytes. */
  const answer = (query: Buffer, longest: number): Buffer => {
    let end = 12
    while (query[end] !== 0) end += (query[end] ?? 0) + 1
    const question = query.subarray(12, end + 5)
    const count = Number(question.subarray(1, 1 + (question[0] ?? 0)).toString("latin1"))
    const record = (n: number) => [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, n >> 8, n & 255]
    const records = Buffer.from(Array.from({ length: count }, (_, n) => record(n + 1)).flat())
    const cut = 12 + question.length + records.length > longest
    const header = Buffer.alloc(12)
    query.copy(header, 0, 0, 2)
    header.writeUInt16BE(cut ? 0x8780 : 0x8580, 2)
    header.writeUInt16BE(1, 4)
    header.writeUInt16BE(cut ? 0 : count, 6)
    return Buffer.concat(cut ? [header, question] : [header, question, records])
  }

  const nameServer = async (): Promise<number> => {
    const { port } = await world.listen(
      (socket) => {
        let held = Buffer.alloc(0)
        socket.on("data", (bytes: Buffer) => {
          held = Buffer.concat([held, bytes])
          while (held.length >= 2 && held.length >= 2 + held.readUInt16BE(0)) {
            const length = held.readUInt16BE(0)
            const reply = answer(held.subarray(2, 2 + length), 65_535)
            held = held.subarray(2 + length)
            socket.write(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 255]), reply]))
          }
        })
        socket.on("end", () => socket.end())
      },
      await world.freePort()
    )
    await listenUdp(world, (query) => answer(query, 512), port)
    return port
  }

  it.each(twoWays)(
    `resolves by UDP and by TCP, and by TCP what is too long for UDP, ${title}`,
    async (receiver, tls) => {
      const { port } = await through(await nameServer(), receiver, tls)
      const dig = async (...args: ReadonlyArray<string>) => {
        const out = await run(world, "dig", [
          "@127.0.0.1",
          "-p",
          String(port),
          "+tries=1",
          "+time=5",
          "+short",
          ...args
        ])
        return out.trimEnd().split("\n")
      }
      const addresses = (count: number) =>
        Array.from({ length: count }, (_, n) => `10.0.${(n + 1) >> 8}.${(n + 1) & 255}`)
      assert.deepStrictEqual(await dig("3.test"), addresses(3))
      assert.deepStrictEqual(await dig("+ignore", "20.test"), addresses(20))
      assert.deepStrictEqual(await dig("+tcp", "4.test"), addresses(4))
      assert.deepStrictEqual(await dig("500.test"), addresses(500))
    }
  )
})

describe.skipIf(lacks("redis-server", "redis-benchmark"))("redis", () => {
  it.each(otherWays)(`answers redis-benchmark in full, ${title}`, async (receiver, tls) => {
    const target = await world.freePort()
    const server = ["--port", String(target), "--bind", "127.0.0.1", "--save", "", "--dir", folder(world)]
    await serve(world, "redis-server", server, /Ready to accept connections/)
    const { port } = await through(target, receiver, tls)
    const load = ["-t", "set,get", "-n", "2000", "-P", "8", "--csv"]
    const out = await run(world, "redis-benchmark", ["-h", "127.0.0.1", "-p", String(port), ...load])
    const rates = Array.from(out.matchAll(/^"(SET|GET)","([\d.]+)"/gm), ([, name, rate]) => `${name} ${rate}/s`)
    console.log(`redis-benchmark ${receiver} tls=${tls}: ${rates.join(", ")}`)
    assert.match(rates.join(), /^SET [1-9].*GET [1-9]/)
  })
})

describe("HTTP", () => {
  /** Splits complete text frames shorter than 126 bytes from the rest. */
  const readFrames = (bytes: Buffer): { readonly texts: ReadonlyArray<string>; readonly rest: Buffer } => {
    const texts: Array<string> = []
    let rest = bytes
    for (;;) {
      const [, second = 0] = rest
      const masked = second >= 128
      const length = second & 127
      const start = masked ? 6 : 2
      if (rest.length < start + length) return { texts, rest }
      const mask = masked ? rest.subarray(2, 6) : Buffer.alloc(4)
      texts.push(
        Buffer.from(rest.subarray(start, start + length).map((byte, n) => byte ^ (mask[n % 4] ?? 0))).toString()
      )
      rest = rest.subarray(start + length)
    }
  }
  const frame = (text: string, mask?: Buffer): Buffer => {
    const bytes = Buffer.from(text)
    if (mask === undefined) return Buffer.concat([Buffer.from([0x81, bytes.length]), bytes])
    return Buffer.concat([
      Buffer.from([0x81, 128 | bytes.length]),
      mask,
      bytes.map((byte, n) => byte ^ (mask[n % 4] ?? 0))
    ])
  }
  const onTexts = (socket: Net.Socket, head: Buffer, handler: (text: string) => void) => {
    let held = Buffer.alloc(0)
    const onData = (bytes: Buffer) => {
      const { rest, texts } = readFrames(Buffer.concat([held, bytes]))
      held = Buffer.from(rest)
      for (const text of texts) handler(text)
    }
    onData(head)
    socket.on("data", onData)
  }

  const acceptOf = (key: string) =>
    Crypto.createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")

  /** Answers a request with its method, path and body, and echoes WebSocket messages. */
  const listenHttp = async () => {
    let connections = 0
    const server = Http.createServer((request, response) => {
      const parts: Array<Buffer> = []
      request
        .on("data", (part: Buffer) => parts.push(part))
        .on("end", () => response.end(`${request.method} ${request.url} ${digest(Buffer.concat(parts))}`))
    })
    server.on("connection", () => connections++)
    server.on("upgrade", (request: Http.IncomingMessage, socket: Net.Socket, head: Buffer) => {
      const accept = acceptOf(request.headers["sec-websocket-key"] ?? "")
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`
      )
      onTexts(socket, head, (text) => socket.write(frame(text)))
      socket.on("end", () => socket.end())
    })
    world.own(server, (server) => {
      server.closeAllConnections()
      server.close()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const address = server.address()
    return {
      port: typeof address === "object" && address !== null ? address.port : 0,
      connections: () => connections
    }
  }

  it.each(otherWays)(`keeps one connection alive for fifty requests, ${title}`, async (receiver, tls) => {
    const { connections, port: target } = await listenHttp()
    const { port } = await through(target, receiver, tls)
    const agent = world.own(new Http.Agent({ keepAlive: true, maxSockets: 1 }), (agent) => agent.destroy())
    const post = async (path: string, body: Buffer): Promise<string> => {
      const request = Http.request({ agent, host: "127.0.0.1", port, path, method: "POST" })
      request.end(body)
      const [response] = (await once(request, "response")) as [Http.IncomingMessage]
      let text = ""
      for await (const part of response.setEncoding("utf8")) text += String(part)
      return text
    }
    const bodies = Array.from({ length: 50 }, (_, n) => Crypto.randomBytes(n * 4000))
    const answers: Array<string> = []
    for (const [n, body] of bodies.entries()) answers.push(await post(`/${n}`, body))
    assert.deepStrictEqual(
      answers,
      bodies.map((body, n) => `POST /${n} ${digest(body)}`)
    )
    assert.strictEqual(connections(), 1)
  })

  it.each(twoWays)(`upgrades to a WebSocket that echoes twenty frames in order, ${title}`, async (receiver, tls) => {
    const { port: target } = await listenHttp()
    const { port } = await through(target, receiver, tls)
    const key = Crypto.randomBytes(16).toString("base64")
    const headers = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Key": key,
      "Sec-WebSocket-Version": "13"
    }
    const request = Http.get({ host: "127.0.0.1", port, path: "/", headers })
    const [response, socket, head] = (await once(request, "upgrade")) as [Http.IncomingMessage, Net.Socket, Buffer]
    world.own(socket, (socket) => socket.destroy())
    assert.strictEqual(response.headers["sec-websocket-accept"], acceptOf(key))
    const texts = Array.from({ length: 20 }, (_, n) => `frame ${n} `.repeat(n % 10).slice(0, 125))
    const received: Array<string> = []
    const all = new Promise<void>((resolve) =>
      onTexts(socket, head, (text) => {
        received.push(text)
        if (received.length === texts.length) resolve()
      })
    )
    for (const text of texts) socket.write(frame(text, Crypto.randomBytes(4)))
    await all
    assert.deepStrictEqual(received, texts)
    const end = readAll(socket)
    socket.end()
    await end
  })
})

/** The chroot of root's sshd; it is missing on a system that has not started sshd. */
const unprivileged = Os.userInfo().uid !== 0 || Fs.existsSync("/run/sshd")

describe.skipIf(lacks("sshd", "ssh", "ssh-keygen", "rsync") || !unprivileged)("ssh", () => {
  const user = Os.userInfo().username

  /** Starts an sshd of this user with its own keys. Returns its port and the ssh options for another port. */
  const startDaemon = async () => {
    const own = folder(world)
    const file = (name: string) => Path.join(own, name)
    for (const name of ["host", "user"]) {
      await run(world, "ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file(name)])
    }
    Fs.copyFileSync(file("user.pub"), file("authorized"))
    const target = await world.freePort()
    const config = [
      `ListenAddress 127.0.0.1:${target}`,
      `HostKey ${file("host")}`,
      `AuthorizedKeysFile ${file("authorized")}`,
      "PidFile none",
      "PasswordAuthentication no",
      "StrictModes no",
      "UsePAM no"
    ]
    Fs.writeFileSync(file("config"), `${config.join("\n")}\n`)
    await serve(world, "sshd", ["-D", "-e", "-f", file("config")], /Server listening/)
    const options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"]
    const words = (port: number) => [
      "-q",
      "-Fnone",
      `-p${port}`,
      `-i${file("user")}`,
      ...options.flatMap((option) => ["-o", option])
    ]
    return { own, target, words }
  }

  it.each(twoWays)(`runs a command and copies a folder by rsync, ${title}`, async (receiver, tls) => {
    const { own, target, words } = await startDaemon()
    const { port } = await through(target, receiver, tls)
    const said = await run(world, "ssh", [...words(port), `${user}@127.0.0.1`, "echo hello; seq 1 20000 | tail -n 1"])
    assert.strictEqual(said, "hello\n20000\n")

    const [from, to] = [Path.join(own, "from"), Path.join(own, "to")]
    Fs.mkdirSync(Path.join(from, "deep/er"), { recursive: true })
    const sizes = [0, 1, 4096, 65_537, 1 << 20, 3 << 20]
    const names = sizes.map((size) => `${size % 2 === 0 ? "" : "deep/er/"}${size}`)
    for (const [n, name] of names.entries()) {
      Fs.writeFileSync(Path.join(from, name), Crypto.randomBytes(sizes[n] ?? 0))
    }
    const shell = ["ssh", ...words(port)].join(" ")
    await run(world, "rsync", ["-a", "-e", shell, `${from}/`, `${user}@127.0.0.1:${to}/`])
    const digests = (of: string) => names.map((name) => digest(Fs.readFileSync(Path.join(of, name))))
    assert.deepStrictEqual(digests(to), digests(from))
    const back = Path.join(own, "back")
    await run(world, "rsync", ["-a", "-e", shell, `${user}@127.0.0.1:${to}/`, `${back}/`])
    assert.deepStrictEqual(digests(back), digests(from))
  })
})
