import { afterEach, assert, beforeEach, describe, it } from "vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import { once } from "node:events"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import * as Path from "node:path"
import nodeProcess from "node:process"
import * as ProxyHeader from "../../src/wire/ProxyHeader.js"
import * as Here from "./command/Here.js"
import {
  answering,
  ask,
  echoing,
  fate,
  makeWorld,
  type Run,
  type Start,
  tunnelOf,
  type TunnelOptions,
  type World,
  tunnelKey
} from "./command/Nodepass.js"
import { begin, folder, lacks } from "./command/Program.js"
import { listenUdp, visitUdp } from "./command/Udp.js"
import { authority, certificate } from "./LiveCertificates.js"
import * as Lag from "../Lag.js"
import type { CertificateSpec } from "../compliance/Tls.js"

let world: World
let start: Start<Here.HereRun>
beforeEach(() => {
  world = makeWorld()
  start = Here.starter(world)
})
afterEach(() => world.close())

const ways = [
  ["server", 0],
  ["client", 0],
  ["server", 1],
  ["client", 1]
] as const
const title = "visitors at the %s, tls=%i"

/** Sends a text and waits for it to come back. */
const comesBack = async (socket: Net.Socket, text: string) => {
  socket.write(text)
  const [back] = await once(socket, "data")
  assert.strictEqual(String(back), text)
}

/** Starts single-end forwarding. */
const forward = async (target: number, query = "", env?: Readonly<Record<string, string>>) => {
  const port = await world.freePort()
  const client = start([`client://127.0.0.1:${port}/127.0.0.1:${target}?mode=1${query}`], env)
  await client.line(/forwarding/)
  return { client, port }
}

describe("UDP", () => {
  const datagrams = Array.from({ length: 200 }, (_, n) => Crypto.randomBytes(1 + Math.round((n * 7999) / 199)))

  /** Eight at a time: more would not fit into the receive buffer of a socket that is not read at once. */
  const echoes = async (port: number) => {
    const answers = await (await visitUdp(world, port)).askAll(datagrams, 8)
    assert.deepStrictEqual(
      answers.map((answer, n) => [n, datagrams[n]?.equals(answer)]),
      datagrams.map((_, n) => [n, true])
    )
  }

  it.each(ways)(`echoes 200 datagrams of 1 to 8000 bytes in order, ${title}`, async (receiver, tls) => {
    const { port: target } = await listenUdp(world)
    const { port } = await Here.tunnel(world, { target, receiver, query: `&tls=${tls}`, clientQuery: "&min=4" })
    await echoes(port)
  })

  it("echoes 200 datagrams of 1 to 8000 bytes in order, with mode=1", async () => {
    const { port: target } = await listenUdp(world)
    await echoes((await forward(target)).port)
  })
})

describe("mode=1", () => {
  it("answers TCP and UDP within 200 ms of its log line", async () => {
    const { port: target } = await world.listen(answering, await world.freePort())
    await listenUdp(world, (bytes) => Buffer.concat([Buffer.from("re:"), bytes]), target)
    await Lag.within(200, async () => {
      const { port } = await forward(target)
      const since = performance.now()
      const visitor = await visitUdp(world, port)
      const answers = await Promise.all([ask(world, port, "tcp"), visitor.ask("udp")])
      assert.deepStrictEqual(answers.map(String), ["re:tcp", "re:udp"])
      return performance.now() - since
    })
  })
})

describe("tls=2", () => {
  /** The files of a new certificate, for `127.0.0.1` by default. */
  const files = () => {
    const own = folder(world)
    const [crt, key] = [Path.join(own, "crt.pem"), Path.join(own, "key.pem")]
    const write = async (wish: Partial<CertificateSpec>) => {
      const made = await Effect.runPromise(certificate({ issuer: "known", names: ["127.0.0.1"], ...wish }))
      Fs.writeFileSync(crt, made.chain)
      Fs.writeFileSync(key, Redacted.value(made.key))
      return made
    }
    const ca = Path.join(own, "ca.pem")
    const writeAuthority = async () => Fs.writeFileSync(ca, await Effect.runPromise(authority))
    return { ca, crt, write, writeAuthority, serverQuery: `&tls=2&crt=${crt}&key=${key}` }
  }

  it.each(["ca", "NODE_EXTRA_CA_CERTS"] as const)("serves with the authority from %s", async (by) => {
    const { port: target } = await world.listen(answering)
    const { ca, serverQuery, write, writeAuthority } = files()
    await write({})
    await writeAuthority()
    // Node reads the variable when a process starts.
    const startClient: Start<Run> = by === "ca" ? start : world.start
    const options: TunnelOptions = {
      target,
      receiver: "server",
      serverQuery,
      clientQuery: by === "ca" ? `&tls=2&min=4&ca=${ca}` : "&tls=2&min=4",
      env: by === "ca" ? {} : { NODE_EXTRA_CA_CERTS: ca }
    }
    const { client, port } = await tunnelOf(options, { server: start, client: startClient })
    assert.strictEqual(String(await ask(world, port, "hello")), "re:hello")
    assert.notMatch(client.log(), /WARN|ERROR/)
  })

  it.each([
    ["whom no authority known has issued", { issuer: "unknown" }, /no trusted authority issued it/],
    ["that is for others", { names: ["other.test"] }, /it is for other\.test, not for 127\.0\.0\.1/]
  ] as const)("gives no visitor to a server with a certificate %s, and logs it once", async (_, wish, reason) => {
    let visitors = 0
    const { port: target } = await world.listen(() => visitors++)
    const { ca, serverQuery, write, writeAuthority } = files()
    await write(wish)
    await writeAuthority()
    const { client, port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      serverQuery,
      clientQuery: `&ca=${ca}`,
      env: { NP_POOL_GET_TIMEOUT: "500ms", NP_SERVICE_COOLDOWN: "100ms" },
      until: reason
    })
    // The client has retried several times by now.
    assert.strictEqual(await fate(world.connect(port)), "ECONNRESET")
    const lines = client.log().split("\n")
    assert.strictEqual(lines.filter((line) => reason.test(line)).length, 1, client.log())
    assert.notMatch(server.log(), /client connected/)
    assert.strictEqual(visitors, 0)
  })

  it("does not start with an expired certificate: one line, exit code 1", async () => {
    const { crt, serverQuery, write } = files()
    await write({ begins: -2e6, expires: -1e6 })
    const ports = [await world.freePort(), await world.freePort()]
    const server = start([`server://${tunnelKey}@127.0.0.1:${ports[0]}/127.0.0.1:${ports[1]}?mode=1${serverQuery}`])
    assert.strictEqual(await server.ended, 1)
    assert.match(server.log(), /^nodepass: crt=\S*: its certificate expired at \S+\n$/)
    assert.include(server.log(), crt)
  })

  it("uses the certificate in the files for new pool connections, and the previous one while the files are invalid", async () => {
    const { port: target } = await world.listen(answering)
    const { ca, crt, serverQuery, write, writeAuthority } = files()
    await write({})
    await writeAuthority()
    const { client, port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      // With streams the connections of the pool stay.
      serverQuery: `${serverQuery}&streams=0`,
      clientQuery: `&ca=${ca}&min=2`,
      env: { NP_POOL_GET_TIMEOUT: "5s" }
    })
    const visit = async (name: string) => assert.strictEqual(String(await ask(world, port, name)), `re:${name}`)
    /** More than the pool holds, so that the client has to dial. */
    const visitMany = async (name: string) => {
      for (let n = 0; n < 20; n++) await visit(`${name} ${n}`)
    }
    await visitMany("the first certificate")

    const next = await write({})
    await server.line(new RegExp(`INFO .*new certificate in use .*${next.fingerprint}`))
    await visitMany("the second certificate")

    Fs.writeFileSync(crt, "not a certificate\n")
    await server.line(/WARN .*the previous certificate stays in use/)
    await visitMany("no certificate")
    assert.notMatch(client.log(), /WARN/)

    const foreign = await write({ issuer: "unknown" })
    await server.line(new RegExp(`INFO .*new certificate in use .*${foreign.fingerprint}`))
    // On existing connections, until the pool has to dial.
    const warned = client.line(/WARN/)
    while (!client.log().includes("WARN")) await Promise.race([warned, visit("on a connection from before")])
    await client.line(/WARN .*no trusted authority issued it/)
  })
})

it("a client with tls=1 refuses a server with tls=0", async () => {
  const [tunnelPort, port] = [await world.freePort(), await world.freePort()]
  const server = start([`server://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1`])
  await server.line(/waiting for a client/)
  const client = start([`client://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:1?mode=2&tls=1`])
  await client.line(
    /WARN .*no session: 127\.0\.0\.1:\d+ offers weaker TLS for pool connections than tls= requires here/
  )
  assert.notMatch(client.log(), / connected /)
  assert.notMatch(server.log(), /client connected/)
})

describe("limits", () => {
  it("slot=5: the sixth visitor is reset while five are served, one of them by UDP, and is served after one has left", async () => {
    const { port: target } = await world.listen(echoing, await world.freePort())
    await listenUdp(world, undefined, target)
    const { port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      query: "&slot=5",
      clientQuery: "&min=4"
    })
    const four = [1, 2, 3, 4].map(() => world.connect(port))
    for (const [n, socket] of four.entries()) await comesBack(socket, `visitor ${n}`)
    const datagrams = await visitUdp(world, port)
    // A visitor that sends again after an answer keeps its slot.
    for (const text of ["the fifth", "again"]) assert.strictEqual(String(await datagrams.ask(text)), text)
    assert.strictEqual(await fate(world.connect(port)), "ECONNRESET")
    await server.line(/WARN .*all 5 slots are in use refused=slot/)
    const [first] = four
    if (first === undefined) return assert.fail()
    const gone = once(first, "close")
    first.end()
    await gone
    await comesBack(world.connect(port), "the next")
    assert.strictEqual(await fate(world.connect(port)), "ECONNRESET")
    assert.strictEqual(String(await datagrams.ask("still served")), "still served")
  })

  it("rate=16: 4 MB take 2 s", async () => {
    const bytes = 4_000_000
    const lengths: Array<number> = []
    const { port: target } = await world.listen((socket) => {
      let length = 0
      socket.on("data", (part: Buffer) => (length += part.length)).on("end", () => lengths.push(length) && socket.end())
    })
    const { port } = await Here.tunnel(world, { target, receiver: "server", query: "&rate=16", clientQuery: "&min=4" })
    await Lag.within(2300, async () => {
      const since = performance.now()
      await ask(world, port, Buffer.alloc(bytes))
      assert.strictEqual(lengths.pop(), bytes)
      const millis = performance.now() - since
      assert.isAbove(millis, 1700)
      return millis
    })
  })

  /** Visits by TCP and by UDP, falls silent, and is ended by each of these sides: after a second, and before 2.5 s. */
  const endsSilent = async (port: number, sides: ReadonlyArray<Run>) => {
    const visitor = world.connect(port)
    const datagrams = await visitUdp(world, port)
    const lag = Lag.watch()
    const since = Date.now()
    await comesBack(visitor, "hello")
    assert.strictEqual(String(await datagrams.ask("hello")), "hello")
    assert.strictEqual(await fate(visitor), "ECONNRESET")
    const ends = [Date.now() - since]
    for (const side of sides) {
      const [found] = await side.logged(/UDPS=1\|[^]*\n.*UDPS=0\|/)
      const [, end = ""] = /\n(\S+ \S+) .*UDPS=0\|$/.exec(found) ?? []
      ends.push(Date.parse(end) - since)
    }
    const latest = 2500 + lag()
    for (const millis of ends) assert.isTrue(millis >= 1000 && millis <= latest, `${millis} of at most ${latest} ms`)
  }
  const listenBoth = async (): Promise<number> => {
    const { port } = await world.listen(echoing, await world.freePort())
    await listenUdp(world, undefined, port)
    return port
  }

  it.each(["server", "client"] as const)(
    "read=1s ends idle TCP connections and UDP sessions, visitors at the %s",
    async (receiver) => {
      const { client, port, server } = await Here.tunnel(world, {
        target: await listenBoth(),
        receiver,
        query: "&read=1s&log=event",
        clientQuery: "&min=2",
        // A session whose peer is silent for two report intervals is over.
        env: { NP_REPORT_INTERVAL: "400ms" }
      })
      await endsSilent(port, [server, client])
    }
  )

  it("read=1s ends idle TCP connections and UDP sessions, with mode=1", async () => {
    const { client, port } = await forward(await listenBoth(), "&read=1s&log=event", { NP_REPORT_INTERVAL: "100ms" })
    await endsSilent(port, [client])
  })
})

describe("the PROXY protocol", () => {
  /** A target that echoes the header and everything after it. */
  const listen = async () => {
    let resolveHeader: (header: {
      readonly bytes: Buffer
      readonly source: string
      readonly destination: string
    }) => void
    const header = new Promise<Parameters<typeof resolveHeader>[0]>((resolve) => (resolveHeader = resolve))
    const { port } = await world.listen((socket) => {
      let held = Buffer.alloc(0)
      const onData = (part: Buffer) => {
        held = Buffer.concat([held, part])
        const decoded = ProxyHeader.decode(held)
        if (decoded._tag !== "Header") return
        const { destination, source } = Option.getOrThrow(decoded.endpoints)
        resolveHeader({
          bytes: held.subarray(0, decoded.length),
          source: String(source),
          destination: String(destination)
        })
        socket.off("data", onData)
        socket.write(held.subarray(decoded.length))
        echoing(socket)
      }
      socket.on("data", onData)
    })
    return { header, port }
  }

  it.each([
    ["server", 1],
    ["client", 2]
  ] as const)("sends the target the visitor's own address, visitors at the %s, proxy=%i", async (receiver, version) => {
    const { header, port: target } = await listen()
    const { port } = await Here.tunnel(world, { target, receiver, query: `&proxy=${version}`, clientQuery: "&min=4" })
    const visitor = world.connect(port)
    await comesBack(visitor, "hello")
    const { bytes, destination, source } = await header
    assert.strictEqual(bytes.toString("latin1").startsWith("PROXY TCP4 "), version === 1)
    assert.strictEqual(source, `127.0.0.1:${visitor.localPort}`)
    assert.strictEqual(destination, `127.0.0.1:${port}`)
  })

  it("proxy-in=1 takes the visitor's address from its PROXY header, and refuses a visitor without one", async () => {
    const { header, port: target } = await listen()
    const { port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      serverQuery: "&proxy-in=1",
      clientQuery: "&proxy=2&min=4"
    })
    const headerless = world.connect(port)
    headerless.write("GET / HTTP/1.1\r\n\r\n")
    assert.strictEqual(await fate(headerless), "ECONNRESET")
    await server.line(/WARN .*sent something else where proxy-in=1 expects a PROXY protocol header refused=header/)

    const visitor = world.connect(port)
    visitor.write("PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\r\n")
    await comesBack(visitor, "hello")
    const { destination, source } = await header
    assert.deepStrictEqual([source, destination], ["203.0.113.7:4711", "198.51.100.2:443"])
  })
})

it("with a dead and a live target, the live one serves every visitor", async () => {
  const { port: live } = await world.listen(answering)
  const target = `127.0.0.1:${await world.freePort()},127.0.0.1:${live}`
  const { port } = await Here.tunnel(world, { target, receiver: "server", clientQuery: "&min=4" })
  const questions = Array.from({ length: 20 }, (_, n) => `visitor ${n}`)
  for (const question of questions) assert.strictEqual(String(await ask(world, port, question)), `re:${question}`)
  const answers = await Promise.all(questions.map((question) => ask(world, port, question)))
  assert.deepStrictEqual(
    answers.map(String),
    questions.map((question) => `re:${question}`)
  )
})

describe("--watch", () => {
  const forwarding = async () => {
    const { port: target } = await world.listen(answering)
    const port = await world.freePort()
    return { port, url: `client://127.0.0.1:${port}/127.0.0.1:${target}?mode=1` }
  }

  it("logs a summary at each report interval without a terminal", async () => {
    const { port, url } = await forwarding()
    const client = start(["--watch", url], { NP_REPORT_INTERVAL: "100ms" })
    await client.logged(/(INFO {2}serving {3}visitors 0 .*\n[^]*){3}/)
    await ask(world, port, "hello")
    await client.line(/INFO {2}serving {3}visitors 1 \(0 tcp, 0 udp now\) {3}up 5 B {3}down 8 B/)
    assert.notInclude(client.log(), "\u001b")
    const times = Array.from(client.log().matchAll(/^(\S+ \S+) .*serving/gm), ([, at = ""]) => Date.parse(at))
    assert.isAbove((times.at(-1) ?? 0) - (times[0] ?? 0), 80 * (times.length - 1))
  })

  it.skipIf(lacks("script"))("redraws a status line on a terminal", async () => {
    const { port, url } = await forwarding()
    const command = `echo pid=$$; exec ${nodeProcess.execPath} bin/nodepass.js --watch '${url}'`
    const terminal = begin(world, "script", ["-qefc", command, "/dev/null"])
    let screen = ""
    terminal.stdout
      ?.setEncoding("utf8")
      .on("data", (text: string) => (screen += text.replaceAll("\r\u001b[2K", "<redrawn>")))
    const shows = async (pattern: RegExp): Promise<string> => {
      for (let found = pattern.exec(screen); ; found = pattern.exec(screen)) {
        if (found !== null) return found[1] ?? found[0]
        await once(terminal.stdout ?? terminal, "data")
      }
    }
    const pid = Number(await shows(/pid=(\d+)/))
    world.own(pid, (pid) => {
      try {
        nodeProcess.kill(pid, "SIGKILL")
      } catch {
        // It has exited.
      }
    })
    await shows(/<redrawn>serving {3}visitors 0 [^\n]*<redrawn>serving {3}visitors 0/)
    await ask(world, port, "hello")
    await shows(/<redrawn>serving {3}visitors 1 \(0 tcp, 0 udp now\) {3}up 5 B {3}down 8 B/)
    const ended = once(terminal, "close")
    nodeProcess.kill(pid, "SIGTERM")
    assert.deepStrictEqual((await ended)[0], 0)
  })
})
