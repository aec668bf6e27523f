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
import * as FirstMessage from "../../src/wire/FirstMessage.js"
import * as HandshakeError from "../../src/wire/HandshakeError.js"
import * as HandshakeStep from "../../src/wire/HandshakeStep.js"
import * as HelloGuard from "../../src/tunnel/HelloGuard.js"
import * as PoolHandshake from "../../src/wire/PoolHandshake.js"
import * as TunnelKey from "../../src/wire/TunnelKey.js"
import * as NodeCrypto from "../../src/node/process/NodeCrypto.js"
import * as ReplayWindow from "../../src/wire/ReplayWindow.js"
import * as Outbox from "../../src/signal/Outbox.js"
import * as Settings from "../../src/transport/Settings.js"
import * as Signal from "../../src/wire/Signal.js"
import * as SimNetwork from "../../src/testing/SimNetwork.js"
import { type Connection, Transport } from "../../src/transport/Transport.js"
import * as Deflate from "../../src/wire/Deflate.js"
import * as Simulated from "../Simulated.js"

const file = Path.join(import.meta.dirname, "../../docs/protocol.md")
const protocol = Fs.readFileSync(file, "utf8")
const transcript = /```transcript\n([\s\S]*?)```/.exec(protocol)?.[1] ?? ""

/** The private keys of the first and the second handshake. */
const ephemerals = {
  client: [0x00, 0x40],
  server: [0x20, 0x60]
}
/** 2026-01-31 12:00:00 UTC, when the transcript begins. */
const begin = 1_769_860_800_000
const who = "0123456789abcdef"
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

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const dialled = Address.make("server.example", 10_101)

/** The real primitives, except that private keys are those of the transcript. Each text that a side encrypts is noted. */
const fixed = Effect.gen(function* () {
  const real = yield* Crypto
  const lines: Array<string> = []
  const key = yield* TunnelKey.make(Option.some(Redacted.make("abc")))
  const salt = yield* TunnelKey.saltOf(dialled)
  const psk = yield* TunnelKey.derive(key, salt)
  const drawing = (who: string, ephemerals: ReadonlyArray<number>) => {
    const left = ephemerals.slice()
    const draw = () => {
      const first = left.shift() ?? assert.fail("too many key pairs")
      return Uint8Array.from({ length: 32 }, (_, at) => first + at)
    }
    return Crypto.of({
      ...real,
      randomBytes: () => Effect.sync(draw),
      seal: (sealing) => {
        lines.push(`${who} text     ${Frame.toText(sealing.data)}`)
        return real.seal(sealing)
      }
    })
  }
  lines.push(`    salt     ${salt}`, `    psk      ${hex(Redacted.value(psk))}`)
  return {
    key,
    salt,
    psk,
    lines,
    client: drawing("C>S", ephemerals.client),
    server: drawing("S>C", ephemerals.server)
  }
}).pipe(Effect.provide(NodeCrypto.layer))

/** Records everything that is written: lines as text, messages in hex. */
const recorded = (connection: Connection, who: string, lines: Array<string>): Connection => ({
  ...connection,
  write: (chunk) => {
    const isLine = chunk[0] === 0x2f
    lines.push(`${who}  ${isLine ? Frame.toText(chunk).trimEnd() : hex(chunk)}`)
    return connection.write(chunk)
  }
})

const received = (dialect: Dialect.Dialect, connection: Connection) =>
  Effect.map(connection.read, (chunk) =>
    Option.match(chunk, {
      onNone: () => assert.fail("the peer sent nothing"),
      onSome: (bytes) =>
        Either.getOrThrow(Frame.makeDecoder({ limit: Dialect.maxMessageBytes }).push(bytes))
          .flatMap((message) => Either.getOrThrow(dialect.decode(message)))
          .flatMap((line) => Either.getOrThrow(line).signals)
    })
  )

const unnumbered = (signal: Signal.Signal) => ({ signals: [{ signal, number: undefined }] })

const conversation = ({ client, key, lines, psk, salt, server }: Effect.Effect.Success<typeof fixed>) =>
  Effect.gen(function* () {
    const guard = yield* HelloGuard.make
    key.keep(salt, psk)
    yield* Effect.sleep(begin)
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
            Handshake.accept(left, { psk, salt, client: who, tls: "plain", resume: before?.ours }),
            Crypto,
            client
          ),
          Effect.gen(function* () {
            const newcomer = yield* FirstMessage.receive(right, { keys: Effect.succeed([key]), guard })
            if (newcomer._tag === "Join") return assert.fail("a hello was decoded as a join")
            const candidate = yield* Handshake.challenge(right, newcomer)
            assert.strictEqual(candidate.client, who)
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
    lines.push(`    secret   ${hex(Redacted.value(agreement.keys.secret))}`)

    yield* left.write(agreement.dialect.encode(unnumbered(new Signal.Ping())))
    assert.deepStrictEqual(yield* received(candidate.dialect, right), [new Signal.Ping()])
    yield* right.write(candidate.dialect.encode(unnumbered(new Signal.Pong())))
    assert.deepStrictEqual(yield* received(agreement.dialect, left), [new Signal.Pong()])

    const [end, other] = yield* meet("pool   ")
    const [given] = yield* Effect.all(
      [
        Effect.provideService(
          PoolHandshake.enter(end, { keys: agreement.keys, count: 0, trust: Option.none() }),
          Transport,
          here
        ),
        Effect.gen(function* () {
          const newcomer = yield* Effect.provideService(
            FirstMessage.receive(other, { keys: Effect.succeed([key]), guard }),
            Crypto,
            server
          )
          if (newcomer._tag === "Hello") return assert.fail("a join was decoded as a hello")
          assert.strictEqual(newcomer.session, candidate.keys.id)
          const count = yield* PoolHandshake.checkJoin(other, { keys: candidate.keys, line: newcomer.line })
          yield* PoolHandshake.admit(other, { keys: candidate.keys, count, id })
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
      const written = `${lines.join("\n")}\n`
      if (process.env["NODEPASS_WRITE"] === "1") {
        Fs.writeFileSync(file, protocol.replace(/```transcript\n[\s\S]*?```/, `\`\`\`transcript\n${written}\`\`\``))
      } else assert.strictEqual(written, transcript)
    })
  )

  it("has the limits of the code", () => {
    const minutes = HandshakeError.clockTolerance / 60_000
    assert.include(
      protocol,
      `| a message or line of the handshake, in either direction | ${HandshakeStep.maxBytes} bytes |`
    )
    assert.include(protocol, `| a message of the control connection | ${Dialect.maxMessageBytes} bytes |`)
    assert.include(protocol, `| a deflated message, inflated | ${Dialect.maxInflatedBytes} bytes |`)
    assert.include(protocol, `| time of a first message, from the server's clock | ${minutes} minutes |`)
    assert.include(protocol, `| first messages that a server remembers | ${HelloGuard.maxHellos} |`)
    assert.include(protocol, `| salts that a side remembers | ${TunnelKey.maxSalts} |`)
    assert.include(protocol, `| signals written and not acknowledged | ${Outbox.maxInFlight} |`)
    assert.include(protocol, `| signals in one write | ${Outbox.maxBatch}, and no more lines than that |`)
    assert.include(
      protocol,
      `| numbers of signals that a reader remembers | ${ReplayWindow.window} below the highest |`
    )
  })
})
