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
import { endRaw, pinned, readRaw, sockets, type TlsThread, tlsThread, turn, writeRaw } from "./RawTls.js"
import { descriptors, pattern } from "../compliance/Relay.js"
import type { CertificateSpec } from "../compliance/Tls.js"
import { utf8 } from "../Bytes.js"
import { runs } from "../Runs.js"

const { ECONNRESET, EPIPE, EPROTO } = constants.errno

interface World extends TlsThread {
  readonly certificate: (spec: CertificateSpec) => Promise<Certificate>
  readonly own: Certificate
  readonly authority: string
}

const law = (sentence: string, program: (world: World) => Promise<void>) =>
  it.live(sentence, () =>
    Effect.scoped(
      Effect.gen(function* () {
        const own = yield* LiveCertificates.certificate({ issuer: "itself", names: ["nodepass"] })
        const authority = yield* LiveCertificates.authority
        const certificate = (spec: CertificateSpec) => Effect.runPromise(LiveCertificates.certificate(spec))
        const thread = yield* tlsThread
        yield* Effect.promise(() => program({ ...thread, certificate, own, authority }))
      })
    )
  )

interface Pair {
  readonly client: TlsSession.TlsSession
  readonly server: TlsSession.TlsSession
  readonly close: () => void
}

/** Two sessions over one TCP connection, and the results of their handshakes. */
const meet = async (
  { libc, raw, secured, session }: World,
  certificate: Certificate,
  as: Tls.Side = pinned(certificate)
) => {
  const [left, right] = await sockets()
  const fds = [raw(left), raw(right)] as const
  const asServer: Tls.Side = { side: "server", certificate }
  const client = session(fds[0], as)
  const server = session(fds[1], asServer)
  const close = () => {
    client.free()
    server.free()
    for (const fd of fds) libc.close(fd)
  }
  // When the client refuses, the server still waits for it.
  const clientSecured = secured(client, as)
  const serverSecured = secured(server, asServer)
  const clientResult = await clientSecured
  if (clientResult !== "Done") libc.shutdown(fds[0])
  return { client, server, clientResult, serverResult: await serverSecured, close, fds }
}

const paired = async (world: World): Promise<Pair & { readonly fds: readonly [number, number] }> => {
  const met = await meet(world, world.own)
  assert.deepStrictEqual([met.clientResult, met.serverResult], ["Done", "Done"])
  return met
}

const nodeServer = ({ own }: World) => ({
  isServer: true,
  secureContext: NodeTls.createSecureContext({ cert: own.chain, key: Redacted.value(own.key), minVersion: "TLSv1.3" })
})

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

describe.runIf(process.platform === "linux")("TlsSession", () => {
  law("carries bytes both ways, half-closes, and is read to the end", async (world) => {
    const { client, close, server } = await paired(world)
    await writeRaw(client, utf8("question"))
    assert.strictEqual(text((await readRaw(server, 8)).bytes), "question")
    assert.strictEqual(await endRaw(client), 0)
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.alloc(0), last: 0 })
    assert.strictEqual(client.write(utf8("late")), -EPIPE)
    await writeRaw(server, pattern(100_000))
    assert.strictEqual(await endRaw(server), 0)
    const { bytes, last } = await readRaw(client)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(100_000)))
    close()
  })

  law("trusts the pinned certificate, whatever its issuer and dates, and no other", async (world) => {
    const old = await world.certificate({ issuer: "unknown", names: ["x.example"], begins: -2e9, expires: -1e9 })
    const good = await meet(world, old)
    assert.strictEqual(good.clientResult, "Done")
    good.close()
    const bad = await meet(world, old, pinned(world.own))
    assert.propertyVal(bad.clientResult, "reason", "NotPinned")
    assert.include(String(bad.clientResult), `its fingerprint is ${old.fingerprint}, not ${world.own.fingerprint}`)
    bad.close()
  })

  law(
    "otherwise trusts a certificate by its chain, name and dates, and fails with the errors of Tls",
    async (world) => {
      const known = { issuer: "known", names: ["a.example", "*.b.example", "127.0.0.1", "::1"] } as const
      const cases: ReadonlyArray<readonly [CertificateSpec, string, RegExp | "Done"]> = [
        [known, "a.example", "Done"],
        [known, "a.example.", "Done"],
        [known, "A.Example", "Done"],
        [known, "x.b.example", "Done"],
        [known, "127.0.0.1", "Done"],
        [known, "::1", "Done"],
        [known, "y.x.b.example", /it is for a\.example, .*not for y\.x\.b\.example$/],
        [known, "127.0.0.2", /not for 127\.0\.0\.2$/],
        [known, "localhost", /not for localhost$/],
        [{ ...known, issuer: "itself" }, "a.example", /no trusted authority .*\(DEPTH_ZERO_SELF_SIGNED_CERT\)$/],
        [{ ...known, issuer: "unknown" }, "a.example", /no trusted authority .*\(UNABLE_TO_(?:GET_ISSUER|VERIFY)/],
        [{ ...known, begins: -2e9, expires: -1e9 }, "a.example", /it expired at \S+Z$/],
        [{ ...known, begins: 1e9, expires: 2e9 }, "a.example", /it is not valid before \S+Z$/]
      ]
      for (const [spec, name, expected] of cases) {
        const trust: Tls.Trust = { _tag: "Authority", name, authorities: [world.authority] }
        const { clientResult, close } = await meet(world, await world.certificate(spec), { side: "client", trust })
        if (expected === "Done") assert.strictEqual(clientResult, "Done", name)
        else assert.match(String(clientResult), expected)
        close()
      }
      const noName: Tls.Trust = { _tag: "Authority", name: "", authorities: [] }
      assert.throws(() => world.contexts.newSession({ side: "client", trust: noName }))
    }
  )

  for (const side of ["server", "client"] as const) {
    const as = ({ own }: World): Tls.Side => (side === "server" ? { side, certificate: own } : pinned(own))

    law(`a ${side} reports why a handshake failed`, async (world) => {
      for (const garbage of ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\u0016hello hello hello", "SSH-2.0-x\r\n", ""]) {
        const [left, right] = await sockets()
        const fd = world.raw(left)
        const session = world.session(fd, as(world))
        right.end(garbage)
        const result = await world.secured(session, as(world))
        assert.propertyVal(result, "reason", "Handshake")
        assert.match(String(result), garbage === "" ? /it ended the connection$/ : /: [a-z ]+$/)
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

  law("an end of the descriptor without close_notify is a reset", async (world) => {
    const { client, close, fds, server } = await paired(world)
    await writeRaw(client, utf8("half of"))
    world.libc.shutdown(fds[0])
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.from("half of"), last: -ECONNRESET })
    assert.strictEqual(server.read(new Uint8Array(65_536)), -ECONNRESET)
    close()
  })

  law("a forged record is an error, and the peer gets an alert", async (world) => {
    const { client, close, fds, server } = await paired(world)
    const forged = new Uint8Array(60).fill(7)
    forged.set([0x17, 3, 3, 0, 55])
    world.libc.write(fds[0], forged, forged.length)
    assert.strictEqual((await readRaw(server)).last, -EPROTO)
    assert.isTrue(server.hasBuffered())
    assert.strictEqual((await readRaw(client)).last, -ECONNRESET)
    close()
  })

  law("records that came with the handshake, or were received before it, are read", async (world) => {
    const [left, right] = await sockets()
    const [one, two] = [world.raw(left), world.raw(right)]
    const asServer: Tls.Side = { side: "server", certificate: world.own }
    const client = world.session(one, pinned(world.own))
    assert.strictEqual(client.handshake(), "WantRead")
    const hello = new Uint8Array(4096)
    await turn()
    const length = world.libc.read(two, hello, hello.length)
    const server = world.session(two, asServer, hello.subarray(0, length))
    assert.strictEqual(server.handshake(), "WantRead")
    assert.strictEqual(await world.secured(client, pinned(world.own)), "Done")
    await writeRaw(client, utf8("early"))
    await turn()
    assert.strictEqual(await world.secured(server, asServer), "Done")
    assert.isTrue(server.hasBuffered())
    assert.strictEqual(text((await readRaw(server, 5)).bytes), "early")
    assert.isFalse(server.hasBuffered())
    for (const session of [client, server]) session.free()
    for (const fd of [one, two]) world.libc.close(fd)
  })

  law("bulk and thousands of small writes arrive whole and in order, when the reader pauses too", async (world) => {
    const { client, close, server } = await paired(world)
    const bytesSent = pattern(20_000_000)
    const writing = (async () => {
      for (let at = 0; at < 30_000;) at += await writeRaw(client, bytesSent.subarray(at, at + 10))
      await writeRaw(client, bytesSent.subarray(30_000))
      await endRaw(client)
    })()
    for (let turns = 0; turns < 5 || !client.isWaiting(); turns++) await turn()
    const { bytes, last } = await readRaw(server)
    await writing
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(bytesSent))
    close()
  })

  law("a key update by either side at any time loses no bytes", async (world) => {
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
    // The server has half-closed: it cannot answer this update.
    await endRaw(server)
    assert.strictEqual((await readRaw(client)).last, 0)
    update(client.session, requested)
    await writeRaw(client, pattern(10))
    await endRaw(client)
    assert.deepStrictEqual(await readRaw(server), { bytes: Buffer.from(pattern(10)), last: 0 })
    close()
  })

  law("a detached session goes on in another thread, with its unsent records", async (world) => {
    const { client, close, fds, server } = await paired(world)
    const bytesSent = pattern(8_000_000)
    const taken = client.write(bytesSent)
    assert.isBelow(taken, bytesSent.length)
    assert.isTrue(client.isWaiting())
    const detached = client.detach()
    assert.isAbove(detached.unsent.length, 0)
    const wire = TlsWire.make(world.openSsl, world.libc)
    const again = TlsSession.make(wire, fds[0], detached)
    const reading = readRaw(server)
    await writeRaw(again, bytesSent.subarray(taken))
    await endRaw(again)
    const { bytes, last } = await reading
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(bytesSent))
    again.free()
    wire.free()
    close()
  })

  law("serves a TLS client of Node", async (world) => {
    const [left, right] = await sockets()
    const fd = world.raw(left)
    const asServer: Tls.Side = { side: "server", certificate: world.own }
    const server = world.session(fd, asServer)
    const options = { socket: right, rejectUnauthorized: false, allowHalfOpen: true }
    const client = NodeTls.connect(options)
    client.on("error", () => undefined)
    assert.strictEqual(await world.secured(server, asServer), "Done")
    if (!client.authorized && client.getProtocol() !== "TLSv1.3") await once(client, "secureConnect")
    assert.strictEqual(client.getProtocol(), "TLSv1.3")
    client.end(pattern(3_000_000))
    const { bytes, last } = await readRaw(server)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(3_000_000)))
    const received: Array<Buffer> = []
    client.on("data", (chunk: Buffer) => received.push(chunk))
    const ended = once(client, "end")
    await writeRaw(server, pattern(2_000_000))
    await endRaw(server)
    await ended
    assert.isTrue(Buffer.concat(received).equals(pattern(2_000_000)))
    server.free()
    world.libc.close(fd)
    client.destroy()
  })

  law("connects to a TLS server of Node, and reads past its session tickets", async (world) => {
    const [left, right] = await sockets()
    const fd = world.raw(left)
    const client = world.session(fd, pinned(world.own))
    const server = new NodeTls.TLSSocket(right, {
      ...nodeServer(world),
      allowHalfOpen: true
    } as NodeTls.TLSSocketOptions)
    server.on("error", () => undefined)
    const received: Array<Buffer> = []
    server.on("data", (chunk: Buffer) => received.push(chunk))
    const ended = once(server, "end")
    assert.strictEqual(await world.secured(client, pinned(world.own)), "Done")
    await writeRaw(client, pattern(2_000_000))
    await endRaw(client)
    await ended
    assert.isTrue(Buffer.concat(received).equals(pattern(2_000_000)))
    server.end(pattern(1_000_000))
    const { bytes, last } = await readRaw(client)
    assert.strictEqual(last, 0)
    assert.isTrue(bytes.equals(pattern(1_000_000)))
    client.free()
    world.libc.close(fd)
    server.destroy()
  })

  law("connections leak no sessions, no descriptors and no memory", async (world) => {
    const visit = async (index: number) => {
      const { client, close, server } = await paired(world)
      await writeRaw(client, pattern(1000))
      if (index % 2 === 0) await readRaw(server, 1000)
      close()
    }
    for (let index = 0; index < runs(40, 200); index++) await visit(index)
    const before = { rss: process.memoryUsage.rss(), fds: descriptors() }
    for (let index = 0; index < runs(200, 1000); index++) await visit(index)
    await turn()
    assert.strictEqual(world.wire.attached(), 0)
    assert.isAtMost(descriptors(), before.fds + 2)
    // Two thousand leaked sessions would take some 60 MB: it shows in a long run.
    assert.isBelow(process.memoryUsage.rss() - before.rss, 40e6)
  })
})
