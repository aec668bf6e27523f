import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import * as Deflate from "../../src/wire/Deflate.js"
import { Crypto } from "../../src/transport/Crypto.js"
import * as Frame from "../../src/wire/Frame.js"
import * as Handshake from "../../src/wire/Handshake.js"
import * as Key from "../../src/wire/Key.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import * as Simulated from "../Simulated.js"
import { utf8 } from "../Bytes.js"

const client = "0123456789abcdef"
const stretch = (key: string) => Key.stretch(Option.some(Redacted.make(key)))

/** Runs a program that can open connections and gets both sides of each. */
const world = <A, E>(
  program: (
    meet: Effect.Effect<readonly [Connection, Connection], unknown, Scope.Scope>
  ) => Effect.Effect<
    A,
    E,
    Crypto | Deadlines.Deadlines | Deflate.Deflate | Scope.Scope | Settings.Settings | Transport
  >,
  seed = 1
): A => {
  const network = SimNetwork.make({ latency: Duration.millis(20) })
  const main = Effect.gen(function* () {
    const here = yield* Effect.provide(Transport, network.host("client"))
    const there = yield* Effect.provide(Transport, network.host("server"))
    const listener = yield* there.listen(Address.make("server", 1))
    const meet = Effect.zip(here.connect(Address.make("server", 1)), listener.accept)
    return yield* Effect.provideService(program(meet), Transport, here)
  }).pipe(Effect.scoped, Effect.provide([Deadlines.layer, Deflate.layerNone, SimCrypto.layer(seed), Settings.layer()]))
  return Simulated.run({ seed, network }, () => main)
}

const serverSide = (connection: Connection, key: Key.Stretched) =>
  Effect.flatMap(Handshake.receive(connection, Effect.succeed([key])), (newcomer) =>
    newcomer._tag === "Hello" ? Handshake.challenge(connection, newcomer) : assert.fail("received a join")
  )
const read = (connection: Connection) => Effect.option(connection.read).pipe(Effect.map(Option.flatten))

describe("Handshake", () => {
  it.prop(
    "agrees when both sides know the same key, and never otherwise",
    [FastCheck.string(), FastCheck.string()],
    ([left, right]) => {
      const [accepted, challenged] = world((meet) =>
        Effect.gen(function* () {
          const [ours, theirs] = yield* meet
          const server = Effect.gen(function* () {
            const candidate = yield* serverSide(theirs, yield* stretch(right))
            yield* theirs.write(utf8(`${candidate.channel.seal("np://9/+#0")}\n`))
            return candidate
          }).pipe(Effect.tapError(() => theirs.reset))
          return yield* Effect.all(
            [
              Effect.either(Handshake.accept(ours, { key: yield* stretch(left), client, tls: "plain" })),
              Effect.either(server)
            ],
            { concurrency: 2 }
          )
        })
      )
      if (left === right) {
        const agreement = Either.getOrThrow(accepted)
        if (agreement._tag === "Resumed") return assert.fail("resumed without a session")
        const { keys, terms } = agreement
        const candidate = Either.getOrThrow(challenged)
        assert.deepStrictEqual([candidate.client, candidate.keys.id], [client, keys.id])
        assert.deepStrictEqual([terms.max, terms.receiver], [9, "client"])
      } else {
        assert.deepInclude(Either.getOrThrow(Either.flip(accepted)), { reason: "NoAnswer" })
        assert.deepInclude(Either.getOrThrow(Either.flip(challenged)), { reason: "WrongKey" })
      }
    }
  )

  it.each([
    ["a line of zeros", `${"\0".repeat(64)}\n`, "Malformed"],
    ["a line without end", "x".repeat(100_000), "Malformed"],
    ["a hello without a seal", `//control?v=1&nonce=${"0".repeat(32)}#hello\n`, "WrongKey"],
    ["nothing", "", "TimedOut"],
    ["half a line", "//control?v=1", "TimedOut"]
  ])("refuses an unauthenticated peer that sends %s, and sends it nothing", (_, noise, reason) => {
    const [refused, elapsed, received] = world((meet) =>
      Effect.gen(function* () {
        const [ours, theirs] = yield* meet
        if (noise !== "") yield* Effect.fork(Effect.ignore(ours.write(utf8(noise))))
        const [elapsed, refused] = yield* Effect.timed(Effect.flip(serverSide(theirs, yield* stretch("key"))))
        yield* theirs.reset
        return [refused.reason, Duration.toSeconds(elapsed), yield* read(ours)] as const
      })
    )
    assert.strictEqual(refused, reason)
    assert.isAtMost(elapsed, 10)
    assert.isTrue(Option.isNone(received))
  })

  it("refuses a recorded hello that is replayed", () => {
    const reason = world((meet) =>
      Effect.gen(function* () {
        const key = yield* stretch("key")
        const [ours, theirs] = yield* meet
        yield* Effect.fork(Effect.ignore(Handshake.accept(ours, { key, client, tls: "plain" })))
        const recorded = Option.getOrThrow(yield* read(theirs))
        const [again, server] = yield* meet
        yield* again.write(recorded)
        yield* Effect.fork(
          Effect.zipRight(read(again), Effect.ignore(again.write(utf8(`//control?who=${client}&s=0#ready\n`))))
        )
        return (yield* Effect.flip(serverSide(server, key))).reason
      })
    )
    assert.strictEqual(reason, "WrongKey")
  })

  it("refuses a server that does not know the key", () => {
    const reason = world((meet) =>
      Effect.gen(function* () {
        const [ours, theirs] = yield* meet
        const welcome = `//control?nonce=${"0".repeat(32)}&s=0&mac=${"0".repeat(32)}#welcome\n`
        yield* Effect.fork(Effect.zipRight(read(theirs), Effect.ignore(theirs.write(utf8(welcome)))))
        return (yield* Effect.flip(Handshake.accept(ours, { key: yield* stretch("key"), client, tls: "plain" }))).reason
      })
    )
    assert.strictEqual(reason, "WrongKey")
  })

  it("keeps the bytes that follow a line of the handshake", () => {
    const rest = world((meet) =>
      Effect.gen(function* () {
        const key = yield* stretch("key")
        const crypto = yield* Crypto
        const [ours, theirs] = yield* meet
        const hello = Key.hello(crypto, key).seal(`//control?v=1&nonce=${"0".repeat(32)}#hello`)
        yield* ours.write(utf8(`${hello}\nand more`))
        yield* Handshake.receive(theirs, Effect.succeed([key]))
        return Frame.toText(Option.getOrThrow(yield* read(theirs)))
      })
    )
    assert.strictEqual(rest, "and more")
  })

  it("admits a pool connection of this session, and no other", () => {
    const [reasons, id] = world((meet) =>
      Effect.gen(function* () {
        const key = yield* stretch("key")
        const crypto = yield* Crypto
        const keys = Key.session(crypto, key, { client: "a", server: "b" })
        const other = Key.session(crypto, key, { client: "a", server: "c" })
        const admit = (connection: Connection) =>
          Effect.gen(function* () {
            const newcomer = yield* Handshake.receive(connection, Effect.succeed([key]))
            if (newcomer._tag === "Hello") return assert.fail("received a hello")
            const count = yield* Handshake.checkJoin(connection, { keys, line: newcomer.line })
            yield* Handshake.admit(connection, { keys, count, id: "9f3c11aa" as never })
          }).pipe(Effect.tapError(() => connection.reset))
        const enter = (theirs: Key.SessionKeys) =>
          Effect.gen(function* () {
            const [ours, server] = yield* meet
            return yield* Effect.all(
              [
                Effect.either(Handshake.enter(ours, { keys: theirs, count: 7, trust: Option.none() })),
                Effect.either(admit(server))
              ],
              { concurrency: 2 }
            )
          })
        const [refused, refusal] = yield* enter(other)
        const [admitted] = yield* enter(keys)
        return [
          [Either.getOrThrow(Either.flip(refused)), Either.getOrThrow(Either.flip(refusal))].map(
            ({ reason }) => reason
          ),
          Either.getOrThrow(admitted).id
        ] as const
      })
    )
    assert.deepStrictEqual(reasons, ["NoAnswer", "WrongKey"])
    assert.strictEqual(id, "9f3c11aa")
  })

  it.each([
    ["plain", "np://9/+#0", "agreed"],
    ["self-signed", "np://9/+#0", "Downgrade"],
    ["verified", "np://9/+#0", "Downgrade"],
    ["verified", `np://9/+?fp=${"0".repeat(64)}#1`, "Downgrade"],
    ["self-signed", `np://9/+?fp=${"0".repeat(64)}#1`, "agreed"],
    ["self-signed", "np://9/+#2", "agreed"],
    ["verified", "np://9/+#2", "agreed"]
  ] as const)("a client that requires tls %s and is offered %s: %s", (tls, terms, outcome) => {
    const seen = world((meet) =>
      Effect.gen(function* () {
        const key = yield* stretch("key")
        const [ours, theirs] = yield* meet
        yield* Effect.fork(
          Effect.flatMap(serverSide(theirs, key), ({ channel }) =>
            Effect.ignore(theirs.write(utf8(`${channel.seal(terms)}\n`)))
          )
        )
        return yield* Effect.match(Handshake.accept(ours, { key, client, tls }), {
          onFailure: ({ reason }) => reason,
          onSuccess: () => "agreed" as const
        })
      })
    )
    assert.strictEqual(seen, outcome)
  })

  describe("of a pool connection over TLS", () => {
    const certificate = SimCertificates.issue({ serial: "ours", names: [], begins: 0, expires: 1e9 })
    const lie = SimCertificates.issue({ serial: "lie", names: [], begins: 0, expires: 1e9 })
    const trust = { _tag: "Pinned", fingerprint: certificate.fingerprint } as const
    const pinned = Option.some(trust)

    /** The server's side, until it has sent the id. */
    const admit = (connection: Connection, key: Key.Stretched, keys: Key.SessionKeys) =>
      Effect.gen(function* () {
        const newcomer = yield* Handshake.receive(connection, Effect.succeed([key]))
        if (newcomer._tag === "Hello") return assert.fail("received a hello")
        const count = yield* Handshake.checkJoin(connection, { keys, line: newcomer.line })
        const inner = yield* Handshake.secureJoined(connection, { keys, count, certificate })
        yield* Handshake.admit(inner, { keys, count, id: "9f3c11aa" as never })
        return inner
      }).pipe(Effect.tapError(() => connection.reset))
    const session = Effect.gen(function* () {
      const key = yield* stretch("key")
      return { key, keys: Key.session(yield* Crypto, key, { client: "a", server: "b" }) }
    })

    it("exchanges bytes over the secured connection", () => {
      const received = world((meet) =>
        Effect.gen(function* () {
          const { key, keys } = yield* session
          const [ours, theirs] = yield* meet
          const [{ connection, id }, inner] = yield* Effect.all(
            [Handshake.enter(ours, { keys, count: 7, trust: pinned }), admit(theirs, key, keys)],
            { concurrency: 2 }
          )
          assert.strictEqual(id, "9f3c11aa")
          yield* inner.write(utf8("hello"))
          return Frame.toText(Option.getOrThrow(yield* read(connection)))
        })
      )
      assert.strictEqual(received, "hello")
    })

    it("refuses an attacker with another certificate, and sends it nothing inside TLS", () => {
      const [reason, received] = world((meet) =>
        Effect.gen(function* () {
          const { keys } = yield* session
          const [ours, middle] = yield* meet
          const listening = Effect.gen(function* () {
            const line = yield* read(middle)
            assert.include(Frame.toText(Option.getOrThrow(line)), "#join")
            const { secure } = yield* Transport
            const inner = yield* secure(middle, { side: "server", certificate: lie })
            return yield* read(inner)
          })
          return yield* Effect.all(
            [
              Effect.map(Effect.flip(Handshake.enter(ours, { keys, count: 7, trust: pinned })), ({ reason }) => reason),
              Effect.orElseSucceed(listening, Option.none)
            ],
            { concurrency: 2 }
          )
        })
      )
      assert.strictEqual(reason, "NotPinned")
      assert.isTrue(Option.isNone(received))
    })

    it("refuses an attacker that forwards the join line and ends TLS itself", () => {
      const reason = world((meet) =>
        Effect.gen(function* () {
          const { key, keys } = yield* session
          const [ours, theirs] = yield* meet
          const join = keys.join(7).seal(`//pool?session=${keys.id}&n=7#join`)
          const inTheMiddle = Effect.gen(function* () {
            const { secure } = yield* Transport
            yield* ours.write(utf8(`${join}\n`))
            const inner = yield* secure(ours, { side: "client", trust })
            yield* inner.write(utf8(`${join}\n`))
          })
          const [refused] = yield* Effect.all([Effect.flip(admit(theirs, key, keys)), Effect.ignore(inTheMiddle)], {
            concurrency: 2
          })
          return refused.reason
        })
      )
      assert.strictEqual(reason, "Malformed")
    })
  })
})
