import { afterEach, assert, beforeEach, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import * as Here from "./command/Here.js"
import {
  answering,
  ask,
  digest,
  echoing,
  fate,
  makeWorld,
  type Nodepass,
  pause,
  readAll,
  type Start,
  tunnelKey,
  tunnelOf,
  type World
} from "./command/Nodepass.js"
import { sharedTunnel } from "./command/sharedTunnel.js"

let world: World
let startHere: Start<Here.HereRun>
beforeEach(() => {
  world = makeWorld()
  startHere = Here.starter(world)
})
afterEach(() => world.close())

const flows = ["server", "client"] as const

/** Sends a byte and waits for it to come back. */
const echoes = async (socket: Net.Socket, text: string) => {
  socket.write(text)
  const [back] = await once(socket, "data")
  assert.strictEqual(String(back), text)
}

describe.each(flows)("a tunnel of two processes, visitors at the %s", (receiver) => {
  const shared = sharedTunnel({ receiver })

  it("carries 16 MiB there and 16 MiB back through a half-closed connection", async () => {
    const question = Buffer.alloc(16 << 20, "question")
    const answer = Buffer.alloc(16 << 20, "the answer")
    const received: Array<string> = []
    shared.serve((socket) => {
      void readAll(socket).then(
        (bytes) => received.push(digest(bytes)) && socket.end(answer),
        () => {}
      )
    })
    const back = await ask(world, shared().port, question)
    assert.deepStrictEqual([...received, digest(back)], [digest(question), digest(answer)])
  })

  it("serves 100 and then 300 visitors at once on the default pool", async () => {
    shared.serve(answering)
    for (const count of [100, 300]) {
      const questions = Array.from({ length: count }, (_, n) => `visitor ${n}`)
      const answers = await Promise.all(questions.map((question) => ask(world, shared().port, question)))
      assert.deepStrictEqual(
        answers.map(String),
        questions.map((question) => `re:${question}`)
      )
    }
  })

  it("a target that resets its connection resets its visitor, and the other way round", async () => {
    let arrived: (socket: Net.Socket) => void = () => {}
    shared.serve((socket) => arrived(socket))
    const { port } = shared()
    for (const leaver of ["target", "visitor"] as const) {
      const arrival = new Promise<Net.Socket>((resolve) => (arrived = resolve))
      const visitor = world.connect(port)
      visitor.write("x")
      const target = await arrival
      await once(target, "data")
      const [leaving, other] = leaver === "target" ? [target, visitor] : [visitor, target]
      leaving.resetAndDestroy()
      assert.strictEqual(await fate(other), "ECONNRESET")
    }
  })

  it("keeps its visitors while a process is stopped and continued", async () => {
    shared.serve(echoing)
    const { client, port } = shared()
    const served = world.connect(port)
    await echoes(served, "before")
    client.child.kill("SIGSTOP")
    const back = echoes(served, "during")
    client.child.kill("SIGCONT")
    await back
  })

  it.skipIf(!Fs.existsSync("/proc/self/fd"))("closes every descriptor after hundreds of visits", async () => {
    shared.serve(answering)
    const { client, port, server } = shared()
    const descriptors = ({ pid }: Nodepass) => Fs.readdirSync(`/proc/${pid}/fd`).length
    await ask(world, port, "first")
    // The visits of the tests above count as well.
    for (let round = 0; round < 2; round++) {
      await Promise.all(Array.from({ length: 50 }, () => ask(world, port, "x")))
    }
    // Without a session the client has no pool: the remaining descriptors are the process's own.
    await server.stop()
    await client.line(/connection refused/)
    while (descriptors(client) >= 45) await pause()
  })
})

describe("the tunnel port", () => {
  it("closes unauthenticated peers without sending a byte, and keeps serving its client", async () => {
    const { port: target } = await world.listen(answering)
    const { port, server, tunnelPort } = await Here.tunnel(world, {
      target,
      receiver: "server",
      env: { NP_HANDSHAKE_TIMEOUT: "1s" }
    })
    const received: Array<Buffer> = []
    const unauthenticated = (noise: Buffer) => {
      const socket = world.connect(tunnelPort).on("data", (bytes: Buffer) => received.push(bytes))
      socket.write(noise)
      return fate(socket)
    }
    const noises = [
      ...Array.from({ length: 300 }, () => Buffer.alloc(0)),
      Buffer.alloc(64, 0),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.alloc(1 << 20, 7),
      Buffer.from("//control?v=1&nonce=0#hello\n")
    ]
    const ends = noises.map(unauthenticated)
    assert.strictEqual(String(await ask(world, port, "while they stay")), "re:while they stay")
    await Promise.all(ends)
    assert.strictEqual(received.length, 0)
    assert.strictEqual(String(await ask(world, port, "after")), "re:after")
    await server.line(/refused=handshake/)
  })

  it("serves the client with the key while one with another key keeps trying", async () => {
    const { port: target } = await world.listen(answering)
    const { port, server, tunnelPort } = await Here.tunnel(world, { target, receiver: "server" })
    const wrongClient = startHere([`client://wrong@127.0.0.1:${tunnelPort}/127.0.0.1:${target}?mode=2&log=debug`])
    await wrongClient.line(/WARN .*no session: .*keys differ/)
    await wrongClient.line(/DEBUG .*no session: .*keys differ/)
    await server.line(/WARN .*does not know the key/)
    assert.strictEqual(String(await ask(world, port, "hello")), "re:hello")
    for (const { log } of [server, wrongClient]) {
      assert.notInclude(log(), tunnelKey)
      assert.notMatch(log(), / {4}at |wrong@/)
    }
  })

  it("makes a second client wait, and serves it when the first has left", async () => {
    const { port: target } = await world.listen(answering)
    const { client, port, server, startClient } = await Here.tunnel(world, { target, receiver: "server" })
    const second = startClient()
    await second.line(/serves another client/)
    assert.strictEqual(String(await ask(world, port, "the first")), "re:the first")
    assert.notMatch(client.log(), /over/)
    await client.stop()
    await second.line(/ connected /)
    await server.line(/INFO .*client left/)
    assert.notMatch(server.log(), /WARN .*client (?:lost|away)/)
    assert.strictEqual(String(await ask(world, port, "the second")), "re:the second")
  })

  it("replaces a client that is stopped", async () => {
    const { port: target } = await world.listen(answering)
    const { client, clientUrl, port } = await tunnelOf(
      { target, receiver: "server" },
      { server: startHere, client: world.start }
    )
    client.child.kill("SIGSTOP")
    const second = startHere([clientUrl])
    await second.line(/ connected /)
    assert.strictEqual(String(await ask(world, port, "the second")), "re:the second")
    client.child.kill("SIGCONT")
  })
})

describe("a process that dies", () => {
  it("kill -9 of the client: its visitors end at once, and a visitor that connects meanwhile is served by the next client", async () => {
    const { port: target } = await world.listen(echoing)
    const { client, clientUrl, port, server } = await tunnelOf(
      { target, receiver: "server" },
      { server: startHere, client: world.start }
    )
    const served = world.connect(port)
    await echoes(served, "hello")
    const end = fate(served)
    await client.stop("SIGKILL")
    assert.include(["end", "ECONNRESET"], await end)
    await server.line(/client lost/)
    const meanwhile = world.connect(port)
    const back = echoes(meanwhile, "still here")
    const next = startHere([clientUrl])
    await next.line(/ connected /)
    await back
  })

  it("kill -9 of the server: the client finds the next one by itself", async () => {
    const { port: target } = await world.listen(echoing)
    const { client, port, server, serverUrl } = await tunnelOf(
      { target, receiver: "server" },
      { server: world.start, client: startHere }
    )
    const served = world.connect(port)
    await echoes(served, "hello")
    const end = fate(served)
    await server.stop("SIGKILL")
    await end
    await client.line(/connection refused/)
    const next = startHere([serverUrl])
    await next.line(/client connected/)
    await echoes(world.connect(port), "again")
  })
})

describe("a target", () => {
  it("that refuses resets its visitor at once", async () => {
    const { client, port } = await Here.tunnel(world, { target: await world.freePort(), receiver: "server" })
    assert.strictEqual(await fate(world.connect(port)), "ECONNRESET")
    await client.line(/WARN .*connection refused refused=target/)
  })
})

describe("limits", () => {
  it("read: a connection idle in both directions is reset, an active one is not", { timeout: 180_000 }, async () => {
    const { port: target } = await world.listen(echoing)
    /** Whether the active connection survives; `pause` is the longest time in which it sent nothing. */
    const attempt = async (millis: number) => {
      const { client, port, server } = await Here.tunnel(world, {
        target,
        receiver: "server",
        query: `&read=${millis}ms`
      })
      const idle = world.connect(port)
      await echoes(idle, "hello")
      const active = world.connect(port)
      const ended = { idle: false, active: false }
      const ends = { idle: fate(idle), active: fate(active) }
      void ends.idle.then(() => (ended.idle = true))
      void ends.active.then(() => (ended.active = true))
      let last = performance.now()
      let longest = 0
      while (!ended.idle && !ended.active) {
        active.write("x")
        await Promise.race([once(active, "data"), ends.active])
        longest = Math.max(longest, performance.now() - last)
        last = performance.now()
        await pause()
      }
      if (ended.active) return { survives: false, longest }
      assert.strictEqual(await ends.idle, "ECONNRESET")
      const line = /INFO .*silent in both directions for read=\S+, .+ after it began .*visitor=127\.0\.0\.1:\d+/
      // Both sides watch it: the first to find it silent says so.
      await Promise.any([server.line(line), client.line(line)])
      return { survives: true, longest }
    }
    // On a machine that pauses for half the limit the result is not valid; a longer limit follows.
    for (const millis of [500, 4000, 16_000]) {
      const { longest, survives } = await attempt(millis)
      if (survives) return
      assert.isAbove(longest, millis / 2, "the active connection was reset")
    }
  })
})

describe("the graceful stop", () => {
  it.each(["SIGTERM", "SIGINT"] as const)(
    "%s: visitors finish, new ones are refused, the exit code is 0",
    async (signal) => {
      const { port: target } = await world.listen(answering)
      const { port, server } = await tunnelOf(
        { target, receiver: "server" },
        { server: world.start, client: startHere }
      )
      const visitor = world.connect(port)
      visitor.write("half")
      await once(visitor, "connect")
      await ask(world, port, "so that the first is served")
      server.child.kill(signal)
      await server.line(/stopping/)
      assert.strictEqual(await fate(world.connect(port)), "ECONNREFUSED")
      const answer = readAll(visitor)
      visitor.end(" and half")
      assert.strictEqual(String(await answer), "re:half and half")
      assert.strictEqual(await server.ended, 0)
    }
  )

  it("closes visitors at the shutdown timeout, with exit code 0", async () => {
    const { port: target } = await world.listen(echoing)
    const { port, server } = await Here.tunnel(world, {
      target,
      receiver: "server",
      env: { NP_SHUTDOWN_TIMEOUT: "300ms" }
    })
    const visitor = world.connect(port)
    await echoes(visitor, "hello")
    const end = fate(visitor)
    assert.strictEqual(await server.stop(), 0)
    assert.strictEqual(await end, "ECONNRESET")
  })

  it("a second signal exits at once, also when it is another one", async () => {
    const { port: target } = await world.listen(echoing)
    const { port, server } = await tunnelOf(
      { target, receiver: "server", env: { NP_SHUTDOWN_TIMEOUT: "1h" } },
      { server: world.start, client: startHere }
    )
    await echoes(world.connect(port), "hello")
    server.child.kill("SIGTERM")
    await server.line(/stopping/)
    // Within 300 ms it would count as the same one.
    const second = setTimeout(() => server.child.kill("SIGINT"), 400)
    assert.strictEqual(await server.ended, 130)
    clearTimeout(second)
  })
})
