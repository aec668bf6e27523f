import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { once } from "node:events"
import { constants } from "node:os"
import * as NodeTls from "node:tls"
import koffi from "koffi"
import type { Certificate } from "../../src/transport/Certificates.js"
import * as TlsSession from "../../src/node/kernel/tls/TlsSession.js"
import * as TlsWire from "../../src/node/kernel/tls/TlsWire.js"
import type * as Tls from "../../src/transport/Tls.js"
import * as LiveCertificates from "./LiveCertificates.js"
import { endRaw, pinned, readRaw, sockets, turn, type Workshop, workshop, writeRaw } from "./RawTls.js"
import { descriptors, pattern } from "../compliance/Relay.js"
import type { Wish } from "../compliance/Tls.js"

const { ECONNRESET, EPIPE, EPROTO } = constants.errno

interface World extends Workshop {
  readonly certificate: (wish: Wish) => Promise<Certificate>
  readonly own: Certificate
  readonly authority: string
}

const law = (sentence: string, program: (world: World) => Promise<void>) =>
  it.live(sentence, () =>
    Effect.scoped(
      Effect.gen(function* () {
        const own = yield* LiveCertificates.certificate({ issuer: "itself", names: ["nodepass"] })
        const authority = yield* LiveCertificates.authority
        const certificate = (wish: Wish) => Effect.runPromise(LiveCertificates.certificate(wish))
        const shop = yield* workshop
        yield* Effect.promise(() => program({ ...shop, certificate, own, authority }))
      })
    )
  )

interface Pair {
  readonly client: TlsSession.TlsSession
  readonly server: TlsSession.TlsSession
  readonly close: () => void
}

/** Two sessions over one TCP connection, and how their handshakes went. */
const meet = async (
  { libc, raw, secured, session }: World,
  certificate: Certificate,
  as: Tls.Side = pinned(certificate)
) => {
  const [left, right] = await sockets()
  const fds = [raw(left), raw(right)] as const
  const shows: Tls.Side = { side: "server", certificate }
  const client = session(fds[0], as)
  const server = session(fds[1], shows)
  const close = () => {
    client.free()
    server.free()
    for (const fd of fds) libc.close(fd)
  }
  // A client that refuses leaves the server waiting for its last words.
  const outcome = secured(client, as)
  const accepted = secured(server, shows)
  const told = await outcome
  if (told !== "Done") libc.shutdown(fds[0])
  return { client, server, told, heard: await accepted, close, fds }
}

const paired = async (world: World): Promise<Pair & { readonly fds: readonly [number, number] }> => {
  const met = await meet(world, world.own)
  assert.deepStrictEqual([met.told, met.heard], ["Done", "Done"])
  return met
}

const nodeServer = ({ own }: World) => ({
  isServer: true,
  secureContext: NodeTls.createSecureContext({ cert: own.chain, key: Redacted.value(own.key), minVersion: "TLSv1.3" })
})

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const ascii = (words: string) => new TextEncoder().encode(words)

describe.runIf(process.platform === "linux")("TlsSession", () => {
  law("carries both ways, half-closes, and is read to its end", async (world) => {
    const { client, close, server } = await paired(world)
    await writeRaw(client, ascii("question"))
    assert.strictEqual(text((await readRaw(server, 8)).bytes), "question")
    assert.strictEqual(await endRaw(client), 0)
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.alloc(0), last: 0 })
    assert.strictEqual(client.write(ascii("late")), -EPIPE)
    await writeRaw(server, pattern(100_000))
    assert.strictEqual(await endRaw(server), 0)
    const { bytes, last } = await readRaw(client)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(100_000)))
    close()
  })

  law("believes the pinned certificate whatever it says, and no other", async (world) => {
    const old = await world.certificate({ issuer: "unknown", names: ["x.example"], begins: -2e9, expires: -1e9 })
    const good = await meet(world, old)
    assert.strictEqual(good.told, "Done")
    good.close()
    const bad = await meet(world, old, pinned(world.own))
    assert.propertyVal(bad.told, "reason", "NotPinned")
    assert.include(String(bad.told), `its fingerprint is ${old.fingerprint}, not ${world.own.fingerprint}`)
    bad.close()
  })

  law("holds others to chain, name and dates, in the words of Tls", async (world) => {
    const known = { issuer: "known", names: ["a.example", "*.b.example", "127.0.0.1", "::1"] } as const
    const cases: ReadonlyArray<readonly [Wish, string, RegExp | "Done"]> = [
      [known, "a.example", "Done"],
      [known, "a.example.", "Done"],
      [known, "A.Example", "Done"],
      [known, "x.b.example", "Done"],
      [known, "127.0.0.1", "Done"],
      [known, "::1", "Done"],
      [known, "y.x.b.example", /it is for a\.example, .*not for y\.x\.b\.example$/],
      [known, "127.0.0.2", /not for 127\.0\.0\.2$/],
      [known, "localhost", /not for localhost$/],
      [{ ...known, issuer: "itself" }, "a.example", /no authority known here .*\(DEPTH_ZERO_SELF_SIGNED_CERT\)$/],
      [{ ...known, issuer: "unknown" }, "a.example", /no authority .*\(UNABLE_TO_(?:GET_ISSUER|VERIFY)/],
      [{ ...known, begins: -2e9, expires: -1e9 }, "a.example", /it expired at \S+Z$/],
      [{ ...known, begins: 1e9, expires: 2e9 }, "a.example", /it is not valid before \S+Z$/]
    ]
    for (const [wish, name, expected] of cases) {
      const trust: Tls.Trust = { _tag: "Authority", name, authorities: [world.authority] }
      const { close, told } = await meet(world, await world.certificate(wish), { side: "client", trust })
      if (expected === "Done") assert.strictEqual(told, "Done", name)
      else assert.match(String(told), expected)
      close()
    }
    const nobody: Tls.Trust = { _tag: "Authority", name: "", authorities: [] }
    assert.throws(() => world.contexts.begin({ side: "client", trust: nobody }))
  })

  for (const side of ["server", "client"] as const) {
    const as = ({ own }: World): Tls.Side => (side === "server" ? { side, certificate: own } : pinned(own))

    law(`a ${side} says why there is no handshake`, async (world) => {
      for (const garbage of ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\u0016hello hello hello", "SSH-2.0-x\r\n", ""]) {
        const [left, right] = await sockets()
        const fd = world.raw(left)
        const session = world.session(fd, as(world))
        right.end(garbage)
        const told = await world.secured(session, as(world))
        assert.propertyVal(told, "reason", "Handshake")
        assert.match(String(told), garbage === "" ? /it ended the connection$/ : /: [a-z ]+$/)
        session.free()
        session.free()
        world.libc.close(fd)
        right.destroy()
      }
      const [left, right] = await sockets()
      const fd = world.raw(left)
      const session = world.session(fd, as(world))
      right.resetAndDestroy()
      await turn()
      assert.propertyVal(await world.secured(session, as(world)), "reason", "Reset")
      session.free()
      world.libc.close(fd)
    })
  }

  law("a connection that is cut off is no end", async (world) => {
    const { client, close, fds, server } = await paired(world)
    await writeRaw(client, ascii("half of"))
    world.libc.shutdown(fds[0])
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.from("half of"), last: -ECONNRESET })
    assert.strictEqual(server.read(new Uint8Array(65_536)), -ECONNRESET)
    close()
  })

  law("a record that was tampered with is refused, and the peer told", async (world) => {
    const { client, close, fds, server } = await paired(world)
    const forged = new Uint8Array(60).fill(7)
    forged.set([0x17, 3, 3, 0, 55])
    world.libc.write(fds[0], forged, forged.length)
    assert.strictEqual((await readRaw(server)).last, -EPROTO)
    assert.isTrue(server.isAhead())
    assert.strictEqual((await readRaw(client)).last, -ECONNRESET)
    close()
  })

  law("records that came along with the handshake, or before, are read", async (world) => {
    const [left, right] = await sockets()
    const [one, two] = [world.raw(left), world.raw(right)]
    const shows: Tls.Side = { side: "server", certificate: world.own }
    const client = world.session(one, pinned(world.own))
    assert.strictEqual(client.handshake(), "WantRead")
    const hello = new Uint8Array(4096)
    await turn()
    const length = world.libc.read(two, hello, hello.length)
    const server = world.session(two, shows, hello.subarray(0, length))
    assert.strictEqual(server.handshake(), "WantRead")
    assert.strictEqual(await world.secured(client, pinned(world.own)), "Done")
    await writeRaw(client, ascii("early"))
    await turn()
    assert.strictEqual(await world.secured(server, shows), "Done")
    assert.isTrue(server.isAhead())
    assert.strictEqual(text((await readRaw(server, 5)).bytes), "early")
    assert.isFalse(server.isAhead())
    for (const session of [client, server]) session.free()
    for (const fd of [one, two]) world.libc.close(fd)
  })

  law("bulk and thousands of small pieces come whole and in order, past a reader that stops", async (world) => {
    const { client, close, server } = await paired(world)
    const words = pattern(20_000_000)
    const writing = (async () => {
      for (let at = 0; at < 30_000;) at += await writeRaw(client, words.subarray(at, at + 10))
      await writeRaw(client, words.subarray(30_000))
      await endRaw(client)
    })()
    for (let turns = 0; turns < 5 || !client.isWaiting(); turns++) await turn()
    const { bytes, last } = await readRaw(server)
    await writing
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(words))
    close()
  })

  law("new keys, asked for by either side at any time, change nothing", async (world) => {
    const update: (session: bigint, kind: number) => number = koffi.load(null).func("int SSL_key_update(void*, int)")
    const { client, close, server } = await paired(world)
    const requested = 1
    for (let round = 0; round < 20; round++) {
      assert.strictEqual(update(client.session, requested), 1)
      await writeRaw(client, pattern(50_000))
      assert.isTrue((await readRaw(server, 50_000)).bytes.equals(pattern(50_000)))
      await writeRaw(server, pattern(20_000))
      assert.isTrue((await readRaw(client, 20_000)).bytes.equals(pattern(20_000)))
    }
    // The answer to this one has no way left.
    await endRaw(server)
    assert.strictEqual((await readRaw(client)).last, 0)
    update(client.session, requested)
    await writeRaw(client, pattern(10))
    await endRaw(client)
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.from(pattern(10)), last: 0 })
    close()
  })

  law("a session at rest goes on in other hands, with what it held", async (world) => {
    const { client, close, fds, server } = await paired(world)
    const words = pattern(8_000_000)
    const taken = client.write(words)
    assert.isBelow(taken, words.length)
    assert.isTrue(client.isWaiting())
    const rest = client.rest()
    assert.isAbove(rest.unsent.length, 0)
    const wire = TlsWire.make(world.openSsl, world.libc)
    const again = TlsSession.make(wire, fds[0], rest)
    const reading = readRaw(server)
    await writeRaw(again, words.subarray(taken))
    await endRaw(again)
    const { bytes, last } = await reading
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(words))
    again.free()
    wire.free()
    close()
  })

  law("is a server to Node's client", async (world) => {
    const [left, right] = await sockets()
    const fd = world.raw(left)
    const shows: Tls.Side = { side: "server", certificate: world.own }
    const server = world.session(fd, shows)
    const options = { socket: right, rejectUnauthorized: false, allowHalfOpen: true }
    const client = NodeTls.connect(options)
    client.on("error", () => undefined)
    assert.strictEqual(await world.secured(server, shows), "Done")
    if (!client.authorized && client.getProtocol() !== "TLSv1.3") await once(client, "secureConnect")
    assert.strictEqual(client.getProtocol(), "TLSv1.3")
    client.end(pattern(3_000_000))
    const { bytes, last } = await readRaw(server)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(3_000_000)))
    const heard: Array<Buffer> = []
    client.on("data", (chunk: Buffer) => heard.push(chunk))
    const ended = once(client, "end")
    await writeRaw(server, pattern(2_000_000))
    await endRaw(server)
    await ended
    assert.isTrue(Buffer.concat(heard).equals(pattern(2_000_000)))
    server.free()
    world.libc.close(fd)
    client.destroy()
  })

  law("is a client to Node's server, and reads past its tickets", async (world) => {
    const [left, right] = await sockets()
    const fd = world.raw(left)
    const client = world.session(fd, pinned(world.own))
    const server = new NodeTls.TLSSocket(right, {
      ...nodeServer(world),
      allowHalfOpen: true
    } as NodeTls.TLSSocketOptions)
    server.on("error", () => undefined)
    const heard: Array<Buffer> = []
    server.on("data", (chunk: Buffer) => heard.push(chunk))
    const ended = once(server, "end")
    assert.strictEqual(await world.secured(client, pinned(world.own)), "Done")
    await writeRaw(client, pattern(2_000_000))
    await endRaw(client)
    await ended
    assert.isTrue(Buffer.concat(heard).equals(pattern(2_000_000)))
    server.end(pattern(1_000_000))
    const { bytes, last } = await readRaw(client)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(1_000_000)))
    client.free()
    world.libc.close(fd)
    server.destroy()
  })

  law("a thousand connections leave neither sessions, descriptors nor memory behind", async (world) => {
    const visit = async (index: number) => {
      const { client, close, server } = await paired(world)
      await writeRaw(client, pattern(1000))
      if (index % 2 === 0) await readRaw(server, 1000)
      close()
    }
    for (let index = 0; index < 200; index++) await visit(index)
    const before = { rss: process.memoryUsage.rss(), fds: descriptors() }
    for (let index = 0; index < 1000; index++) await visit(index)
    await turn()
    assert.strictEqual(world.wire.attached(), 0)
    assert.isAtMost(descriptors(), before.fds + 2)
    // Two thousand sessions would be some 60 MB.
    assert.isBelow(process.memoryUsage.rss() - before.rss, 40e6)
  })
})
