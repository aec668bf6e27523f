/**
 * The signals that the two sides exchange. Each is a URL reference whose fragment is its kind.
 *
 * An unknown kind decodes to `Unknown` and unknown query parameters are ignored, so that later versions can add both.
 * Source: docs/protocol.md §Signals.
 */
import * as Arr from "effect/Array"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Address from "../core/Address.js"
import * as TlsMode from "../core/TlsMode.js"

const connectionId = /^[0-9a-f]{8}$/

/** Names one pool connection within its session: 8 hex digits. */
export const ConnectionId = Schema.String.pipe(Schema.pattern(connectionId), Schema.brand("ConnectionId"))
export type ConnectionId = typeof ConnectionId.Type

/** Like `Schema.is`, which costs each visitor some microseconds. */
export const isConnectionId = (text: string | undefined): text is ConnectionId =>
  text !== undefined && connectionId.test(text)

const fingerprint = /^[0-9a-f]{64}$/

/**
 * The server's terms: the most idle pool connections, the side that visitors connect to, the TLS mode of pool connections,
 * and for `self-signed` the fingerprint of its certificate, 64 lower-case hex digits.
 */
export class Terms extends Schema.TaggedClass<Terms>()("Terms", {
  max: Schema.Int.pipe(Schema.between(1, 65535)),
  receiver: Schema.Literal("server", "client"),
  tls: TlsMode.TlsMode,
  fingerprint: Schema.OptionFromSelf(Schema.String.pipe(Schema.pattern(fingerprint)))
}) {}

const words = /^[A-Za-z]{1,32}(?:,[A-Za-z]{1,32}){0,7}$/

/** Connect the visitor on this pool connection to the target. */
export class Launch extends Schema.TaggedClass<Launch>()("Launch", {
  protocol: Schema.Literal("tcp", "udp"),
  id: ConnectionId,
  visitor: Address.Address,
  /** The address that the visitor connected to. */
  entry: Schema.OptionFromSelf(Address.Address)
}) {}

/** A visitor, its protocol, and the address that it connected to. */
export type Visit = Pick<Launch, "protocol" | "visitor" | "entry">

/** Like `new Launch`, without its check of typed fields, which costs each visitor 50 µs. */
export const makeLaunch = (fields: Visit & Pick<Launch, "id">): Launch =>
  new Launch(fields, { disableValidation: true })

/** This many visitors wait: open as many pool connections now, as far as the capacity allows. */
export class Demand extends Schema.TaggedClass<Demand>()("Demand", { count: Schema.Int.pipe(Schema.positive()) }) {}

/** Keep this many idle pool connections and close the others. */
export class Keep extends Schema.TaggedClass<Keep>()("Keep", { count: Schema.Int.pipe(Schema.positive()) }) {}

/** Close every idle pool connection and fill the pool again. */
export class Flush extends Schema.TaggedClass<Flush>()("Flush", {}) {}

/**
 * Nothing has come on the pool connection of this launch. `sent`: the sender has written to it, a round trip ago or earlier.
 *
 * The receiver may find that the connection is dead, and then sends `Withdrawn`.
 */
export class Silent extends Schema.TaggedClass<Silent>()("Silent", { id: ConnectionId, sent: Schema.Boolean }) {}

/** The launch was undone: nothing of its visitor has reached a target, or will. The visitor may be launched again. */
export class Withdrawn extends Schema.TaggedClass<Withdrawn>()("Withdrawn", { id: ConnectionId }) {}

/** The launch has ended on the side of the target, without an end of its bytes. Its visitor is reset. */
export class Refused extends Schema.TaggedClass<Refused>()("Refused", { id: ConnectionId }) {}

/** Use this pool connection for this carrier of streams: it is the `attempt`th that the carrier has. */
export class Carry extends Schema.TaggedClass<Carry>()("Carry", {
  id: ConnectionId,
  carrier: Schema.Int.pipe(Schema.between(1, 0xffff_ffff)),
  attempt: Schema.Int.pipe(Schema.between(1, 0xffff_ffff))
}) {}

/**
 * Whether the sender reaches a target. `why`: the reasons of the last failures, as words of letters; `None` when it does.
 * `millis`: how long that is so at most, unless another signal follows.
 */
export class Targets extends Schema.TaggedClass<Targets>()("Targets", {
  why: Schema.OptionFromSelf(Schema.String.pipe(Schema.pattern(words))),
  millis: Schema.Int.pipe(Schema.nonNegative())
}) {}

export class Ping extends Schema.TaggedClass<Ping>()("Ping", {}) {}

export class Pong extends Schema.TaggedClass<Pong>()("Pong", {}) {}

/** Carries only the acknowledgement of its line. */
export class Ack extends Schema.TaggedClass<Ack>()("Ack", {}) {}

/** The lines that follow in this direction are sealed with the next key. */
export class Rotation extends Schema.TaggedClass<Rotation>()("Rotation", {}) {}

/** The sender ends the session and does not come back. */
export class Bye extends Schema.TaggedClass<Bye>()("Bye", {}) {}

/** A signal of a kind that this version does not know. */
export class Unknown extends Schema.TaggedClass<Unknown>()("Unknown", { kind: Schema.String }) {}

export const Signal = Schema.Union(
  Terms,
  Launch,
  Demand,
  Keep,
  Flush,
  Silent,
  Withdrawn,
  Refused,
  Carry,
  Targets,
  Ping,
  Pong,
  Ack,
  Rotation,
  Bye,
  Unknown
)
export type Signal = typeof Signal.Type

/** `//9f3c11aa?from=203.0.113.7:50122#1`, `#i`, `np://1024/-#0`: one line of the control connection, before its seal. */
export const FromText: Schema.Schema<Signal, string> = Schema.transformOrFail(
  Schema.String,
  Schema.typeSchema(Signal),
  {
    strict: true,
    encode: (signal) => ParseResult.succeed(toText(signal)),
    decode: (text, _, ast) => ParseResult.mapError(fromText(text), (why) => new ParseResult.Type(ast, text, why))
  }
)

/** The line of a signal, as `FromText` encodes it. */
export const toText = (signal: Signal): string => {
  switch (signal._tag) {
    case "Terms":
      return termsText(signal)
    case "Launch":
      return launchesText([signal])
    case "Demand":
    case "Keep":
      return `?n=${signal.count}#${kinds[signal._tag]}`
    case "Silent":
      return `//${signal.id}?sent=${signal.sent ? 1 : 0}#${kinds.Silent}`
    case "Carry":
      return `//${signal.id}?carrier=${signal.carrier}&attempt=${signal.attempt}#${kinds.Carry}`
    case "Withdrawn":
    case "Refused":
      return `//${signal.id}#${kinds[signal._tag]}`
    case "Targets":
      return Option.match(signal.why, {
        onNone: () => `#${kinds.Targets}`,
        onSome: (why) => `?why=${why}&for=${signal.millis}#${kinds.Targets}`
      })
    case "Unknown":
      return `#${signal.kind}`
    default:
      return `#${kinds[signal._tag]}`
  }
}

/** The line of several launches. They have one protocol, and all have an entry or none has. */
export const launchesText = (launches: Arr.NonEmptyReadonlyArray<Launch>): string => {
  const [{ protocol }] = launches
  const entries = launches.flatMap(({ entry }) => (Option.isSome(entry) ? [String(entry.value)] : []))
  const same = entries.every((entry) => entry === entries[0])
  const to = entries.length === 0 ? "" : `&to=${same ? entries[0] : entries.join()}`
  const ids = launches.map(({ id }) => id).join()
  const from = launches.map(({ visitor }) => String(visitor)).join()
  return `//${ids}?from=${from}${to}#${protocol === "tcp" ? 1 : 2}`
}

/** The visit as the payload of a stream's first frame: `?from=203.0.113.7:50122&to=198.51.100.2:8080#1`. */
export const visitText = ({ entry, protocol, visitor }: Visit): string => {
  const to = Option.isSome(entry) ? `&to=${String(entry.value)}` : ""
  return `?from=${String(visitor)}${to}#${protocol === "tcp" ? 1 : 2}`
}

export const visitFromText = (text: string): Either.Either<Visit, string> => {
  const kind = text.at(-1)
  const visitor = Address.fromText(parameter(text, "from") ?? "")
  if (Option.isNone(visitor)) return Either.left("expected from=<host:port>")
  if ((kind !== "1" && kind !== "2") || text.at(-2) !== "#") return Either.left("expected #1 or #2")
  const entry = Address.fromText(parameter(text, "to") ?? "")
  return Either.right({ protocol: kind === "1" ? "tcp" : "udp", visitor: visitor.value, entry })
}

/** Decodes like `FromText`, in a tenth of its time. On the left is what was expected of the line. */
export const fromText = (text: string): Either.Either<Signal, string> =>
  Either.flatMap(listFromText(text), ([signal, ...others]) =>
    others.length === 0 ? Either.right(signal) : Either.left("expected one signal in the line")
  )

/** Decodes the signals of a line: one, or several launches. */
export const listFromText = (text: string): Either.Either<Arr.NonEmptyReadonlyArray<Signal>, string> => {
  const [, path, kind] = reference.exec(text) ?? []
  if (path === undefined || kind === undefined) return Either.left("expected a URL reference with a fragment")
  const offered = terms.exec(path)
  if (offered !== null) return Either.map(termsFrom(offered, kind, parameter(text, "fp")), Arr.of)
  return kind === "1" || kind === "2" ? launchesFrom(text, path, kind) : Either.map(otherFrom(text, path, kind), Arr.of)
}

/** The value of a query parameter of a line. */
export const parameter = (line: string, name: string): string | undefined => {
  const head = line.indexOf("?")
  const tail = line.indexOf("#", head)
  const query = head === -1 ? "" : line.slice(head + 1, tail === -1 ? undefined : tail)
  return query
    .split("&")
    .find((part) => part.startsWith(`${name}=`))
    ?.slice(name.length + 1)
}

/** The line with one more query parameter. */
export const withParameter = (line: string, name: string, value: string | number): string => {
  const at = line.indexOf("#")
  const head = line.slice(0, at)
  return `${head}${head.includes("?") ? "&" : "?"}${name}=${value}${line.slice(at)}`
}

// internal

const kinds = {
  Demand: "d",
  Keep: "k",
  Flush: "0",
  Silent: "s",
  Withdrawn: "w",
  Refused: "x",
  Carry: "c",
  Targets: "t",
  Ping: "i",
  Pong: "o",
  Ack: "a",
  Rotation: "r",
  Bye: "b"
} as const

const termsText = ({ fingerprint, max, receiver, tls }: Terms): string => {
  const pinned = Option.match(fingerprint, { onNone: () => "", onSome: (digits) => `?fp=${digits}` })
  return `np://${max}/${receiver === "server" ? "-" : "+"}${pinned}#${TlsMode.toDigit(tls)}`
}

const otherFrom = (text: string, path: string, kind: string): Either.Either<Signal, string> => {
  switch (kind) {
    case kinds.Demand:
      return Either.map(countFrom(text), (count) => new Demand({ count }))
    case kinds.Keep:
      return Either.map(countFrom(text), (count) => new Keep({ count }))
    case kinds.Flush:
      return Either.right(new Flush())
    case kinds.Silent:
      return Either.flatMap(idFrom(path), (id) => {
        const sent = parameter(text, "sent")
        return sent === "0" || sent === "1"
          ? Either.right(new Silent({ id, sent: sent === "1" }))
          : Either.left("expected sent=<0 or 1>")
      })
    case kinds.Carry:
      return Either.flatMap(idFrom(path), (id) => carryFrom(text, id))
    case kinds.Withdrawn:
      return Either.map(idFrom(path), (id) => new Withdrawn({ id }))
    case kinds.Refused:
      return Either.map(idFrom(path), (id) => new Refused({ id }))
    case kinds.Targets:
      return targetsFrom(text)
    case kinds.Ping:
      return Either.right(new Ping())
    case kinds.Pong:
      return Either.right(new Pong())
    case kinds.Ack:
      return Either.right(new Ack())
    case kinds.Rotation:
      return Either.right(new Rotation())
    case kinds.Bye:
      return Either.right(new Bye())
    default:
      return Either.right(new Unknown({ kind }))
  }
}

const reference = /^([^?#]*)(?:\?[^#]*)?#([^#]*)$/
const terms = /^np:\/\/(\d{1,5})\/([-+])$/
const launch = /^(?:np:\/\/([^/?#]+)\/|\/\/)([^/?#]*)$/

const termsFrom = (
  [, max, flow]: RegExpExecArray,
  kind: string,
  digits: string | undefined
): Either.Either<Signal, string> => {
  const tls = Option.getOrUndefined(TlsMode.fromDigit(kind))
  if (tls === undefined || Number(max) < 1 || Number(max) > 65535) {
    return Either.left("expected np://<1 to 65535>/<- or +>#<0, 1 or 2>")
  }
  if (digits === undefined ? tls === "self-signed" : !fingerprint.test(digits))
    return Either.left("expected fp=<64 hex digits>, the fingerprint of the certificate")
  const receiver = flow === "-" ? "server" : "client"
  return Either.right(new Terms({ max: Number(max), receiver, tls, fingerprint: Option.fromNullable(digits) }))
}

const idFrom = (path: string): Either.Either<ConnectionId, string> => {
  const id = path.slice(2)
  return path.startsWith("//") && isConnectionId(id) ? Either.right(id) : Either.left("expected //<8 hex digits>")
}

const carryFrom = (text: string, id: ConnectionId): Either.Either<Carry, string> => {
  const [carrier, attempt] = [Number(parameter(text, "carrier")), Number(parameter(text, "attempt"))]
  const isCount = (number: number) => Number.isInteger(number) && number >= 1 && number <= 0xffff_ffff
  return isCount(carrier) && isCount(attempt)
    ? Either.right(new Carry({ id, carrier, attempt }))
    : Either.left("expected carrier=<number>&attempt=<number>, both from 1 to 4294967295")
}

const decodeCount = Schema.decodeUnknownEither(Schema.NumberFromString.pipe(Schema.int(), Schema.positive()))

const countFrom = (text: string): Either.Either<number, string> =>
  Either.mapLeft(decodeCount(parameter(text, "n")), () => "expected n=<whole number from 1>")

const targetsFrom = (text: string): Either.Either<Signal, string> => {
  const [why, millis] = [parameter(text, "why"), parameter(text, "for") ?? ""]
  if (why === undefined) return Either.right(new Targets({ why: Option.none(), millis: 0 }))
  return words.test(why) && /^\d{1,9}$/.test(millis)
    ? Either.right(new Targets({ why: Option.some(why), millis: Number(millis) }))
    : Either.left("expected why=<words> and for=<milliseconds>")
}

const launchesFrom = (
  text: string,
  path: string,
  kind: "1" | "2"
): Either.Either<Arr.NonEmptyReadonlyArray<Launch>, string> => {
  const [, peer, names = ""] = launch.exec(path) ?? []
  const ids = names.split(",")
  const from = (parameter(text, "from") ?? peer ?? "").split(",")
  const to = parameter(text, "to")?.split(",") ?? []
  if (from.length !== ids.length) return Either.left("expected one visitor in from= for each connection id")
  if (to.length > 1 && to.length !== ids.length)
    return Either.left("expected one address in to=, or one for each connection id")
  const launches: Array<Launch> = []
  for (const [index, id] of ids.entries()) {
    if (!isConnectionId(id)) return Either.left("expected connection ids of 8 hex digits")
    const visitor = Address.fromText(from[index] ?? "")
    if (Option.isNone(visitor)) return Either.left("expected from=<host:port> for each visitor")
    const entry = Address.fromText(to[to.length > 1 ? index : 0] ?? "")
    launches.push(makeLaunch({ protocol: kind === "1" ? "tcp" : "udp", id, visitor: visitor.value, entry }))
  }
  return Arr.isNonEmptyArray(launches) ? Either.right(launches) : Either.left("expected connection ids of 8 hex digits")
}
