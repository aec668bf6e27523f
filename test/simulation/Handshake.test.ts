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
import * as FirstMessage from "../../src/wire/FirstMessage.js"
import { clockTolerance } from "../../src/wire/HandshakeError.js"
import * as HelloGuard from "../../src/tunnel/HelloGuard.js"
import * as Key from "../../src/wire/Key.js"
import * as PoolHandshake from "../../src/wire/PoolHandshake.js"
import * as TunnelKey from "../../src/wire/TunnelKey.js"
import { guard } from "../Ciphers.js"
import * as Settings from "../../src/transport/Settings.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as SimCrypto from "../../src/testing/SimCrypto.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import * as Simulated from "../Simulated.js"
import { utf8 } from "../Bytes.js"

const client = "0123456789abcdef"
const keyOf = (key: string) => TunnelKey.make(Option.some(Redacted.make(key)))
const dialled = Address.make("server.example", 10_101)
/** What a client sends and knows that has this key and connects to this address. */
const asClient = (key: string, address = dialled) =>
  Effect.gen(function* () {
    const salt = yield* TunnelKey.saltOf(address)
    const psk = yield* TunnelKey.derive(yield* keyOf(key), salt)
    return { psk, salt, client, tls: "plain" } as const
  })
/** The first message of a client that has this key, as it is written. */
const helloOf = (key: string, address = dialled) =>
  Effect.gen(function* () {
    const { psk, salt } = yield* asClient(key, address)
    return Frame.message((yield* FirstMessage.hello(psk, salt)).message)
  })

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

const serverSide = (connection: Connection, key: TunnelKey.TunnelKey, own: FirstMessage.HelloGuard = guard) =>
  Effect.flatMap(FirstMessage.receive(connection, { keys: Effect.succeed([key]), guard: own }), (newcomer) =>
    newcomer._tag === "Hello" ? Handshake.challenge(connection, newcomer) : assert.fail("received a join")
  )
/** What the server finds wrong with these bytes as a first message, and what it sends to their sender. */
const refusalOf = (
  meet: Effect.Effect<readonly [Connection, Connection], unknown, Scope.Scope>,
  bytes: Uint8Array,
  key: TunnelKey.TunnelKey,
  own: FirstMessage.HelloGuard = guard
) =>
  Effect.gen(function* () {
    const [ours, theirs] = yield* meet
    yield* ours.write(bytes)
    const error = yield* Effect.flip(serverSide(theirs, key, own))
    yield* theirs.reset
    return { reason: error.reason, message: error.message, received: yield* read(ours) }
  })
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
            const candidate = yield* serverSide(theirs, yield* keyOf(right))
            yield* theirs.write(Frame.message(candidate.ciphers.sending.encrypt(utf8("np://9/+#0"))))
            return candidate
          }).pipe(Effect.tapError(() => theirs.reset))
          return yield* Effect.all(
            [Effect.either(Handshake.accept(ours, yield* asClient(left))), Effect.either(server)],
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
    ["zeros", "\0".repeat(64), "Malformed"],
    ["a line without end", `/${"x".repeat(100_000)}`, "Malformed"],
    ["a request of another protocol", "GET / HTTP/1.1\r\n\r\n", "Malformed"],
    ["a hello of another version", `\0\x64\x03${"\0".repeat(99)}`, "Version"],
    ["a hello by no key", `\0\x64\x02${"\0".repeat(99)}`, "WrongKey"],
    ["a short hello", "\0\x09\x0212345678", "WrongKey"],
    ["a hello of the previous version", `//control?v=1&nonce=${"0".repeat(32)}#hello\n`, "Malformed"],
    ["nothing", "", "TimedOut"],
    ["half a message", "\0\x64\x02", "TimedOut"],
    ["half a line", "//pool?session=", "TimedOut"]
  ])("refuses an unauthenticated peer that sends %s, and sends it nothing", (_, noise, reason) => {
    const [refused, elapsed, received] = world((meet) =>
      Effect.gen(function* () {
        const [ours, theirs] = yield* meet
        if (noise !== "") yield* Effect.fork(Effect.ignore(ours.write(utf8(noise))))
        const [elapsed, refused] = yield* Effect.timed(Effect.flip(serverSide(theirs, yield* keyOf("key"))))
        yield* theirs.reset
        return [refused.reason, Duration.toSeconds(elapsed), yield* read(ours)] as const
      })
    )
    assert.strictEqual(refused, reason)
    assert.isAtMost(elapsed, 10)
    assert.isTrue(Option.isNone(received))
  })

  it("refuses a recorded hello that is replayed, for as long as its time is accepted and after, without a byte", () => {
    const seen = world((meet) =>
      Effect.gen(function* () {
        const own = yield* HelloGuard.make
        const key = yield* keyOf("key")
        const recorded = yield* helloOf("key")
        const [ours, theirs] = yield* meet
        yield* ours.write(recorded)
        yield* Effect.fork(Effect.ignore(serverSide(theirs, key, own)))
        const answered = Option.isSome(yield* read(ours))
        const replay = refusalOf(meet, recorded, key, own)
        const replays = [yield* replay]
        yield* Effect.sleep(clockTolerance - 1000)
        replays.push(yield* replay)
        yield* Effect.sleep(2000)
        replays.push(yield* replay)
        return { answered, replays }
      })
    )
    assert.isTrue(seen.answered)
    assert.deepStrictEqual(
      seen.replays.map(({ reason, received }) => [reason, Option.isNone(received)]),
      [
        ["Replayed", true],
        ["Replayed", true],
        ["Clock", true]
      ]
    )
  })

  it.each([
    [clockTolerance - 1000, ""],
    [1000 - clockTolerance, ""],
    [clockTolerance + 61_000, "it is 6m 1s behind this one, unless the message is a replay"],
    [-61_000 - clockTolerance, "it is 6m 1s ahead of this one, unless the message is a replay"]
  ])("a server whose clock is %i ms ahead of the client's measures a difference that is too large", (ahead, said) => {
    const message = world((meet) =>
      Effect.gen(function* () {
        yield* Effect.sleep(2 * clockTolerance)
        const [ours, theirs] = yield* meet
        yield* ours.write(yield* helloOf("key"))
        const key = yield* keyOf("key")
        const clock = yield* Effect.clock
        const other = { ...clock, currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + ahead) }
        return yield* FirstMessage.receive(theirs, { keys: Effect.succeed([key]), guard }).pipe(
          Effect.withClock(other),
          Effect.match({ onFailure: (error) => error.message, onSuccess: () => "" })
        )
      })
    )
    if (said === "") return assert.strictEqual(message, "")
    assert.include(message, said)
    assert.include(message, "its clock differs by more than 5m")
  })

  it.prop(
    "tells by the first bytes what cannot be a handshake, and never of a real one",
    [FastCheck.uint8Array({ minLength: 1, maxLength: 600 }), FastCheck.nat()],
    ([bytes, cut]) => {
      const [reason, begun] = world((meet) =>
        Effect.gen(function* () {
          const hello = yield* helloOf("key")
          const join = utf8("//pool?session=0123456789abcdef&n=1&mac=00#join\n")
          const begun = [hello, join].map((real) => FirstMessage.canBegin(real.subarray(0, 1 + (cut % real.length))))
          const [ours, theirs] = yield* meet
          yield* ours.write(bytes)
          yield* ours.end
          const received = FirstMessage.receive(theirs, { keys: Effect.succeed([yield* keyOf("key")]), guard })
          const reason = yield* Effect.match(received, { onFailure: ({ reason }) => reason, onSuccess: () => "none" })
          return [reason, begun] as const
        })
      )
      assert.deepStrictEqual(begun, [true, true])
      if (!FirstMessage.canBegin(bytes)) assert.include(["Malformed", "Ended"], reason)
    }
  )

  it.prop(
    "refuses each message after any bit of it was flipped, the first one without a byte",
    [FastCheck.nat(), FastCheck.constantFrom("hello", "welcome", "ready", "terms")],
    ([bit, which]) => {
      const [accepted, challenged, received] = world((meet) =>
        Effect.gen(function* () {
          const [ours, theirs] = yield* meet
          const flip = (connection: Connection, places: ReadonlyArray<string>): Connection => {
            const left = places.slice()
            return {
              ...connection,
              write: (bytes) => {
                const copy = Uint8Array.from(bytes)
                // Not in the length: another length is another message.
                const at = 2 + ((bit >> 3) % (copy.length - 2))
                if (left.shift() === which) copy[at] = (copy[at] ?? 0) ^ (1 << (bit & 7))
                return connection.write(copy)
              }
            }
          }
          let received = 0
          const counting: Connection = { ...ours, read: Effect.tap(ours.read, () => Effect.sync(() => received++)) }
          const server = serverSide(flip(theirs, ["welcome"]), yield* keyOf("key")).pipe(
            Effect.tap(({ ciphers }) =>
              flip(theirs, ["terms"]).write(Frame.message(ciphers.sending.encrypt(utf8("np://9/+#0"))))
            ),
            Effect.tapError(() => theirs.reset)
          )
          const from = flip(counting, ["hello", "ready"])
          const client = Effect.tapError(Handshake.accept(from, yield* asClient("key")), () => ours.reset)
          const sides = yield* Effect.all([Effect.either(client), Effect.either(server)], { concurrency: 2 })
          return [...sides, received] as const
        })
      )
      assert.isTrue(Either.isLeft(accepted))
      assert.strictEqual(Either.isRight(challenged), which === "terms")
      if (which === "hello") assert.strictEqual(received, 0)
    }
  )

  it("refuses a server that does not know the key", () => {
    const reason = world((meet) =>
      Effect.gen(function* () {
        const [ours, theirs] = yield* meet
        const welcome = Frame.message(new Uint8Array(80).fill(7))
        yield* Effect.fork(Effect.zipRight(read(theirs), Effect.ignore(theirs.write(welcome))))
        return (yield* Effect.flip(Handshake.accept(ours, yield* asClient("key")))).reason
      })
    )
    assert.strictEqual(reason, "WrongKey")
  })

  it("keeps the bytes that follow a message of the handshake", () => {
    const rest = world((meet) =>
      Effect.gen(function* () {
        const [ours, theirs] = yield* meet
        yield* ours.write(Frame.concat([yield* helloOf("key"), utf8("and more")]))
        yield* FirstMessage.receive(theirs, { keys: Effect.succeed([yield* keyOf("key")]), guard })
        return Frame.toText(Option.getOrThrow(yield* read(theirs)))
      })
    )
    assert.strictEqual(rest, "and more")
  })

  it("stretches the key once for each address that clients use, and a few times a second for strangers", () => {
    const { reasons, stretched } = world((meet) =>
      Effect.gen(function* () {
        let stretched = 0
        const crypto = yield* Crypto
        const counting = Crypto.of({
          ...crypto,
          stretch: (...given) =>
            Effect.zipRight(
              Effect.sync(() => stretched++),
              crypto.stretch(...given)
            )
        })
        const key = yield* Effect.provideService(keyOf("key"), Crypto, counting)
        const own = yield* HelloGuard.make
        const from = (address: Address.Address, text = "key") =>
          Effect.gen(function* () {
            const [ours, theirs] = yield* meet
            yield* ours.write(yield* helloOf(text, address))
            const remote = Address.make("203.0.113.9", 1)
            const server = FirstMessage.receive({ ...theirs, remote }, { keys: Effect.succeed([key]), guard: own })
            return yield* Effect.match(server, { onFailure: ({ reason }) => reason, onSuccess: () => "accepted" })
          })
        const reasons = [yield* from(dialled), yield* from(dialled), yield* from(dialled, "another")]
        for (let n = 0; n < 6; n++) reasons.push(yield* from(Address.make("stranger", n), "another"))
        reasons.push(yield* from(dialled))
        yield* Effect.sleep(Duration.seconds(5))
        reasons.push(yield* from(Address.make("second.example", 1)))
        return { reasons, stretched }
      })
    )
    assert.deepStrictEqual(reasons, [
      "accepted",
      "accepted",
      "WrongKey",
      "WrongKey",
      "WrongKey",
      "Unstretched",
      "Unstretched",
      "Unstretched",
      "Unstretched",
      "accepted",
      "accepted"
    ])
    assert.strictEqual(stretched, 4)
  })

  it("admits a pool connection of this session, and no other", () => {
    const [reasons, id] = world((meet) =>
      Effect.gen(function* () {
        const key = yield* keyOf("key")
        const crypto = yield* Crypto
        const keys = Key.session(crypto, Redacted.make(utf8("this")))
        const other = Key.session(crypto, Redacted.make(utf8("other")))
        const admit = (connection: Connection) =>
          Effect.gen(function* () {
            const newcomer = yield* FirstMessage.receive(connection, { keys: Effect.succeed([key]), guard })
            if (newcomer._tag === "Hello") return assert.fail("received a hello")
            const count = yield* PoolHandshake.checkJoin(connection, { keys, line: newcomer.line })
            yield* PoolHandshake.admit(connection, { keys, count, id: "9f3c11aa" as never })
          }).pipe(Effect.tapError(() => connection.reset))
        const enter = (theirs: Key.SessionKeys) =>
          Effect.gen(function* () {
            const [ours, server] = yield* meet
            return yield* Effect.all(
              [
                Effect.either(PoolHandshake.enter(ours, { keys: theirs, count: 7, trust: Option.none() })),
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
        const key = yield* keyOf("key")
        const [ours, theirs] = yield* meet
        yield* Effect.fork(
          Effect.flatMap(serverSide(theirs, key), ({ ciphers }) =>
            Effect.ignore(theirs.write(Frame.message(ciphers.sending.encrypt(utf8(terms)))))
          )
        )
        return yield* Effect.match(Handshake.accept(ours, { ...(yield* asClient("key")), tls }), {
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
    const admit = (connection: Connection, key: TunnelKey.TunnelKey, keys: Key.SessionKeys) =>
      Effect.gen(function* () {
        const newcomer = yield* FirstMessage.receive(connection, { keys: Effect.succeed([key]), guard })
        if (newcomer._tag === "Hello") return assert.fail("received a hello")
        const count = yield* PoolHandshake.checkJoin(connection, { keys, line: newcomer.line })
        const inner = yield* PoolHandshake.secureJoined(connection, { keys, count, certificate })
        yield* PoolHandshake.admit(inner, { keys, count, id: "9f3c11aa" as never })
        return inner
      }).pipe(Effect.tapError(() => connection.reset))
    const session = Effect.gen(function* () {
      return { key: yield* keyOf("key"), keys: Key.session(yield* Crypto, Redacted.make(utf8("this"))) }
    })

    it("exchanges bytes over the secured connection", () => {
      const received = world((meet) =>
        Effect.gen(function* () {
          const { key, keys } = yield* session
          const [ours, theirs] = yield* meet
          const [{ connection, id }, inner] = yield* Effect.all(
            [PoolHandshake.enter(ours, { keys, count: 7, trust: pinned }), admit(theirs, key, keys)],
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
              Effect.map(
                Effect.flip(PoolHandshake.enter(ours, { keys, count: 7, trust: pinned })),
                ({ reason }) => reason
              ),
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
