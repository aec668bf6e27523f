import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as Address from "../../src/core/Address.js"
import * as Deadlines from "../../src/core/Deadlines.js"
import { Crypto } from "../../src/transport/Crypto.js"
import * as Dialect from "../../src/wire/Dialect.js"
import * as Frame from "../../src/wire/Frame.js"
import * as Handshake from "../../src/wire/Handshake.js"
import * as Key from "../../src/wire/Key.js"
import * as NodeCrypto from "../../src/node/process/NodeCrypto.js"
import * as ReplayWindow from "../../src/wire/ReplayWindow.js"
import * as Outbox from "../../src/signal/Outbox.js"
import * as Settings from "../../src/transport/Settings.js"
import * as Signal from "../../src/wire/Signal.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import * as Deflate from "../../src/wire/Deflate.js"
import * as Simulated from "../Simulated.js"
import { utf8 } from "../Bytes.js"

const protocol = Fs.readFileSync(Path.join(import.meta.dirname, "../../docs/protocol.md"), "utf8")
const transcript = /```transcript\n([\s\S]*?)```/.exec(protocol)?.[1] ?? ""

const nonces = {
  client: ["000102030405060708090a0b0c0d0e0f", "202122232425262728292a2b2c2d2e2f"],
  server: ["101112131415161718191a1b1c1d1e1f", "303132333435363738393a3b3c3d3e3f"]
}
const process = "0123456789abcdef"
const id = Signal.ConnectionId.make("9f3c11aa")
const launchOf = (id: Signal.ConnectionId, port: number) =>
  new Signal.Launch({
    protocol: "tcp",
    id,
    visitor: Address.make("203.0.113.7", port),
    entry: Option.some(Address.make("198.51.100.2", 8080))
  })
const launch = launchOf(id, 50_122)
const others = [
  launchOf(Signal.ConnectionId.make("3d733362"), 50_123),
  launchOf(Signal.ConnectionId.make("dbaab913"), 50_124)
]
const terms = new Signal.Terms({ max: 1024, receiver: "server", tls: "plain", fingerprint: Option.none() })

/** The real primitives, except that random bytes are the nonces of the transcript. */
const fixed = Effect.gen(function* () {
  const real = yield* Crypto
  const key = yield* Key.stretch(Option.some(Redacted.make("abc")))
  const drawing = (nonces: ReadonlyArray<string>) => {
    const left = nonces.slice()
    const draw = () => Uint8Array.from(Buffer.from(left.shift() ?? assert.fail("too many nonces"), "hex"))
    return Crypto.of({ ...real, randomBytes: () => Effect.sync(draw) })
  }
  return { key, client: drawing(nonces.client), server: drawing(nonces.server) }
}).pipe(Effect.provide(NodeCrypto.layer))

/** Records every line that is written. */
const recorded = (connection: Connection, who: string, lines: Array<string>): Connection => ({
  ...connection,
  write: (chunk) => {
    for (const line of Frame.toText(chunk).trimEnd().split("\n")) lines.push(`${who}  ${line}`)
    return connection.write(chunk)
  }
})

const received = (dialect: Dialect.Dialect, connection: Connection) =>
  Effect.map(connection.read, (chunk) =>
    Option.match(chunk, {
      onNone: () => assert.fail("the peer sent nothing"),
      onSome: (bytes) =>
        Frame.toText(bytes)
          .trimEnd()
          .split("\n")
          .flatMap((line) => Either.getOrThrow(dialect.decode(utf8(line))))
          .flatMap(({ signals }) => signals)
    })
  )

const unnumbered = (signal: Signal.Signal) => ({ signals: [{ signal, number: undefined }] })

const conversation = ({ client, key, server }: Effect.Effect.Success<typeof fixed>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const network = SimNetwork.make()
    const address = Address.make("server", 10_101)
    const [here, there] = yield* Effect.all([
      Effect.provide(Transport, network.host("client")),
      Effect.provide(Transport, network.host("server"))
    ])
    const listener = yield* there.listen(address)
    const meet = (kind: string) =>
      Effect.gen(function* () {
        const left = recorded(yield* here.connect(address), `C>S ${kind}`, lines)
        return [left, recorded(yield* listener.accept, `S>C ${kind}`, lines)] as const
      })

    const agree = (
      [left, right]: readonly [Connection, Connection],
      before?: { readonly ours: Handshake.Resumable; readonly theirs: Handshake.Resumable }
    ) =>
      Effect.all(
        [
          Effect.provideService(
            Handshake.accept(left, { key, client: process, tls: "plain", resume: before?.ours }),
            Crypto,
            client
          ),
          Effect.gen(function* () {
            const newcomer = yield* Handshake.receive(right, Effect.succeed([key]))
            if (newcomer._tag === "Join") return assert.fail("a hello was decoded as a join")
            const candidate = yield* Handshake.challenge(right, newcomer)
            assert.strictEqual(candidate.client, process)
            if (before === undefined) yield* Handshake.grant(right, candidate, terms)
            else {
              assert.isTrue(Handshake.belongsTo(candidate, before.theirs.keys))
              yield* Handshake.resume(right, candidate, before.theirs)
            }
            return candidate
          }).pipe(Effect.provideService(Crypto, server))
        ],
        { concurrency: 2 }
      )

    const first = yield* meet("control")
    const [left, right] = first
    const [agreement, candidate] = yield* agree(first)
    if (agreement._tag === "Resumed") return assert.fail("there was nothing to resume")
    assert.deepStrictEqual(agreement.terms, terms)

    yield* left.write(agreement.dialect.encode(unnumbered(new Signal.Ping())))
    assert.deepStrictEqual(yield* received(candidate.dialect, right), [new Signal.Ping()])
    yield* right.write(candidate.dialect.encode(unnumbered(new Signal.Pong())))
    assert.deepStrictEqual(yield* received(agreement.dialect, left), [new Signal.Pong()])

    const [end, other] = yield* meet("pool   ")
    const [given] = yield* Effect.all(
      [
        Effect.provideService(
          Handshake.enter(end, { keys: agreement.keys, count: 0, trust: Option.none() }),
          Transport,
          here
        ),
        Effect.gen(function* () {
          const newcomer = yield* Effect.provideService(Handshake.receive(other, Effect.succeed([key])), Crypto, server)
          if (newcomer._tag === "Hello") return assert.fail("a join was decoded as a hello")
          assert.strictEqual(newcomer.session, candidate.keys.id)
          const count = yield* Handshake.checkJoin(other, { keys: candidate.keys, line: newcomer.line })
          yield* Handshake.admit(other, { keys: candidate.keys, count, id })
        })
      ],
      { concurrency: 2 }
    )
    assert.strictEqual(given.id, id)

    yield* right.write(candidate.dialect.encode({ signals: [{ signal: launch, number: 0 }] }))
    yield* left.reset

    const second = yield* meet("control")
    const [again, resumed] = yield* agree(second, {
      ours: { keys: agreement.keys, received: -1 },
      theirs: { keys: candidate.keys, received: -1 }
    })
    assert.deepInclude(again, { _tag: "Resumed", received: -1 })
    const repeated = [launch, ...others].map((signal, number) => ({ signal, number }))
    // A resend does not share its line with a new signal.
    yield* second[1].write(resumed.dialect.encode({ signals: repeated.slice(0, 1) }))
    assert.deepStrictEqual(yield* received(again.dialect, second[0]), [launch])
    yield* second[1].write(resumed.dialect.encode({ signals: repeated.slice(1) }))
    assert.deepStrictEqual(yield* received(again.dialect, second[0]), others)
    const acknowledgement = again.dialect.encode({
      signals: [{ signal: new Signal.Ack(), number: undefined }],
      acknowledged: 3
    })
    yield* second[0].write(acknowledgement)
    assert.deepStrictEqual(yield* received(resumed.dialect, second[1]), [new Signal.Ack()])
    return lines
  }).pipe(Effect.scoped, Effect.provide([Deadlines.layer, Deflate.layerNone, Settings.layer()]))

describe("docs/protocol.md", () => {
  it.live("has a transcript that both sides write byte for byte", () =>
    Effect.map(fixed, (fixed) => {
      const lines = Simulated.run({ seed: 1 }, () => conversation(fixed))
      assert.strictEqual(`${lines.join("\n")}\n`, transcript)
    })
  )

  it("has the limits of the code", () => {
    assert.include(protocol, `| a line of the handshake, in either direction | ${Handshake.maxLineBytes} bytes |`)
    assert.include(protocol, `| a deflated line, inflated | ${Dialect.maxInflatedBytes} bytes |`)
    assert.include(protocol, `| signals written and not acknowledged | ${Outbox.maxInFlight} |`)
    assert.include(protocol, `| signals in one write | ${Outbox.maxBatch}, and no more lines than that |`)
    assert.include(
      protocol,
      `| numbers of signals that a reader remembers | ${ReplayWindow.window} below the highest |`
    )
  })
})
