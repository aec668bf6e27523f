/**
 * The command URL: `server://key@host:port/host:port?parameters`, one text for the command line and for hosts alike.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Address from "../core/Address.js"
import * as TlsMode from "../core/TlsMode.js"
import { Level } from "../core/LogLine.js"
import * as Parameter from "./Parameter.js"
import { masked, refuse, type UrlError } from "./UrlError.js"
import * as UrlQuery from "./UrlQuery.js"

export { UrlError } from "./UrlError.js"

const common = {
  /** What both sides must hold; `None` lets in whoever comes. */
  key: Schema.OptionFromSelf(Schema.RedactedFromSelf(Schema.String)),
  /** Where the server waits for its client, and the client finds it first; or, forwarding alone, where visitors come to. */
  tunnel: Schema.typeSchema(Address.Address),
  /**
   * Where visitors are brought to, any of them; on the side that receives them, where they come to, which is one. An empty
   * host is every interface.
   */
  targets: Schema.NonEmptyArray(Schema.typeSchema(Address.Address)),
  log: Level,
  /** A visit silent in both directions this long is closed; infinite: never. */
  read: Schema.DurationFromSelf,
  /** Mbit/s each way, of all visitors together; `Infinity`: no limit. */
  rate: Schema.Number,
  /** Visitors served at once at most; `Infinity`: no limit. */
  slot: Schema.Number,
  /** The version of the PROXY protocol header sent to TCP targets. */
  proxy: Schema.Literal("none", "v1", "v2"),
  /** Whether TCP visitors come with a PROXY protocol header, which is then theirs to have. */
  proxyIn: Schema.Boolean,
  /** Which target is next: in turn, the one with fewest visitors, or by the visitor's address. */
  balance: Schema.Literal("rr", "least", "hash"),
  /** How often targets are connected to, to see whether they answer; infinite: never. */
  check: Schema.DurationFromSelf,
  /** The congestion control of connections between the two sides, by the system's name for it; `auto`: as the path needs it. */
  congestion: Schema.String
}

/** How a server's data connections, or a master's API, are secured. */
export const ServerTls = Schema.Union(
  Schema.Struct({ mode: Schema.Literal("plain") }),
  Schema.Struct({ mode: Schema.Literal("self-signed") }),
  /** `crt` and `key` are the paths of PEM files. */
  Schema.Struct({ mode: Schema.Literal("verified"), crt: Schema.String, key: Schema.String })
)
export type ServerTls = typeof ServerTls.Type

/** A server, as its URL describes it. */
export const ServerConfig = Schema.TaggedStruct("Server", {
  ...common,
  tls: ServerTls,
  /** Whether visitors come to its target address, or it brings them there; `auto`: the former where it can listen. */
  mode: Schema.Literal("auto", "receive", "send"),
  /** Pool connections at most, 1 to 65535. */
  max: Schema.Number
})
export type ServerConfig = typeof ServerConfig.Type

/** A client, as its URL describes it. */
export const ClientConfig = Schema.TaggedStruct("Client", {
  ...common,
  /** Further servers, the preferred first. */
  standbys: Schema.Array(Schema.typeSchema(Address.Address)),
  /** Whether it goes through the first server that is there, or through all of them at once. */
  servers: Schema.Literal("failover", "all"),
  /** The weakest mode that the server may have. */
  tls: TlsMode.TlsMode,
  /** A PEM file of authorities trusted besides the system's, where the server's certificate is verified. */
  authorities: Schema.OptionFromSelf(Schema.String),
  /** Whether it forwards alone, or serves with a server; `auto`: the former where it can listen at its tunnel address. */
  mode: Schema.Literal("auto", "forward", "through"),
  /** Pool connections kept warm at least, 1 to 65535. */
  min: Schema.Number
})
export type ClientConfig = typeof ClientConfig.Type

export const TunnelConfig = Schema.Union(ServerConfig, ClientConfig).annotations({ identifier: "TunnelConfig" })
export type TunnelConfig = typeof TunnelConfig.Type

/** Every parameter that a URL may have: what the documentation is made from. */
export const parameters = Parameter.all

/** Text ⇄ config. The text it makes has the key in it. */
export const FromText: Schema.Schema<TunnelConfig, string> = Schema.transformOrFail(Schema.String, TunnelConfig, {
  strict: true,
  encode: (config) => ParseResult.succeed(format(config, { key: "shown" })),
  decode: (text, _, ast) =>
    ParseResult.mapError(parse(text), (error) => new ParseResult.Type(ast, masked(text), error.message))
})

/** The config that the text describes. White space around the text is passed over. */
export const parse = (text: string): Either.Either<TunnelConfig, UrlError> =>
  Either.gen(function* () {
    const { role, userinfo, ...url } = yield* split(text.trim())
    const [tunnel, ...standbys] =
      role === "server"
        ? ([yield* addressFrom("tunnel", url.tunnel)] as const)
        : yield* addressesFrom("tunnel", url.tunnel, serversMost)
    const ends = {
      key: yield* keyFrom(userinfo),
      tunnel,
      standbys,
      targets: yield* addressesFrom("target", url.target, targetsMost)
    }
    const config = yield* build(role, ends, yield* UrlQuery.parse(role, url.query))
    const own = config.targets.find((target) => overlap(config, target))
    return own === undefined
      ? config
      : yield* refuse("target port", String(own.port), "another port than the tunnel's on the same address")
  })

/** The URL with every default spelled out. The key is `***` unless it is asked for. */
export const format = (config: TunnelConfig, options?: { readonly key?: "masked" | "shown" | undefined }): string => {
  const userinfo = Option.match(config.key, {
    onNone: () => "",
    onSome: (key) => `${options?.key === "shown" ? percentEncoded(Redacted.value(key)) : "***"}@`
  })
  const texts = textsOf(config)
  const query = Parameter.of(roleOf(config)).flatMap(({ name }) => {
    const value = texts[name]
    return value === undefined ? [] : [`${name}=${queryText(value)}`]
  })
  return `${roleOf(config)}://${userinfo}${serversOf(config).join(",")}/${config.targets.join(",")}?${query.join("&")}`
}

/** One thing that a URL says. */
export interface Row {
  readonly part: string
  readonly value: string
  readonly meaning: string
  /** Whether it is what it would be, had the URL not said it. */
  readonly isDefault: boolean
}

/** All that the URL says, defaults included, and what it means. The key is not in it. */
export const describe = (config: TunnelConfig): ReadonlyArray<Row> => {
  const texts = textsOf(config)
  const keyed = Option.isSome(config.key)
  return [
    { part: "role", value: roleOf(config), meaning: roles[config._tag], isDefault: false },
    {
      part: "key",
      value: keyed ? "***" : "none",
      meaning: keyed ? "both sides must have it" : "whoever reaches the tunnel address may connect",
      isDefault: !keyed
    },
    { part: "tunnel", value: serversOf(config).join(","), meaning: tunnels[config._tag], isDefault: false },
    { part: "target", value: config.targets.join(","), meaning: targets[config.mode], isDefault: false },
    ...Parameter.of(roleOf(config)).flatMap(({ name, meaning, ...parameter }) => {
      const value = texts[name]
      return value === undefined ? [] : [{ part: name, value, meaning, isDefault: value === parameter.default }]
    })
  ]
}

/** The same as aligned lines of text. */
export const report = (config: TunnelConfig): string => [format(config), "", ...lines(describe(config))].join("\n")

/** The rows as lines of text, aligned. */
export const lines = (rows: ReadonlyArray<Row>): ReadonlyArray<string> => {
  const width = (column: "part" | "value") => Math.max(...rows.map((row) => row[column].length)) + 2
  const [part, value] = [width("part"), width("value")]
  const line = (row: Row) =>
    `${row.part.padEnd(part)}${row.value.padEnd(value)}${row.meaning}${row.isDefault ? " (default)" : ""}`
  return rows.map(line)
}

/** What `tls`, `crt` and `key` say together. */
export const tlsFrom = (values: {
  readonly tls: TlsMode.TlsMode
  readonly crt?: string | undefined
  readonly key?: string | undefined
}): Either.Either<ServerTls, UrlError> =>
  Either.gen(function* () {
    const { crt, key, tls: mode } = values
    if (mode === "verified") {
      if (crt === undefined) return yield* refuse("crt", "", "the certificate's file, since tls=2")
      if (key === undefined) return yield* refuse("key", "", "the file of crt's key, since tls=2")
      return { mode, crt, key }
    }
    for (const [name, file] of Object.entries({ crt, key })) {
      if (file !== undefined) return yield* refuse(name, file, `no ${name} file unless tls=2`)
    }
    return { mode }
  })

// internal

const roles = { Server: "waits for a client", Client: "connects to a server, or forwards alone" }
const tunnels = {
  Server: "where the client connects",
  Client: "where the server is, or several are; forwarding alone, where visitors come"
}
const targets = {
  auto: "where visitors come, or where they are brought; see mode",
  receive: "where visitors come",
  send: "where visitors are brought",
  forward: "where visitors are brought",
  through: "where visitors come, or where they are brought; the server decides"
}

/** Every address in the tunnel's place. */
const serversOf = (config: TunnelConfig): readonly [Address.Address, ...ReadonlyArray<Address.Address>] =>
  config._tag === "Server" ? [config.tunnel] : [config.tunnel, ...config.standbys]

const roleOf = ({ _tag }: TunnelConfig): Parameter.Role => (_tag === "Server" ? "server" : "client")

const textsOf = (config: TunnelConfig): UrlQuery.Texts =>
  config._tag === "Server" ? serverTexts(config) : clientTexts(config)

const serverTexts = ({ balance, congestion, key: _, proxyIn, tls, ...values }: ServerConfig): UrlQuery.Texts => ({
  ...Schema.encodeSync(Parameter.Server)({
    ...values,
    "proxy-in": proxyIn,
    lb: balance,
    cc: congestion,
    tls: tls.mode
  }),
  ...(tls.mode === "verified" ? { crt: tls.crt, key: tls.key } : {})
})

const clientTexts = ({
  authorities,
  balance,
  congestion,
  key: _,
  proxyIn,
  ...values
}: ClientConfig): UrlQuery.Texts => ({
  ...Schema.encodeSync(Parameter.Client)({ ...values, "proxy-in": proxyIn, lb: balance, cc: congestion }),
  ...Option.match(authorities, { onNone: () => ({}), onSome: (ca) => ({ ca }) })
})

type Ends = Pick<ClientConfig, "key" | "standbys" | "targets" | "tunnel">

/** The texts are ones that the same schemas accepted; what is left to refuse is what does not go together. */
const build = (role: Parameter.Role, ends: Ends, texts: UrlQuery.Texts): Either.Either<TunnelConfig, UrlError> =>
  role === "server" ? buildServer(ends, texts) : buildClient(ends, texts)

const buildServer = ({ standbys: _, ...ends }: Ends, texts: UrlQuery.Texts): Either.Either<ServerConfig, UrlError> =>
  Either.gen(function* () {
    const values = Schema.decodeUnknownSync(Parameter.Server)(texts)
    const { check, log, max, mode, rate, read, slot, proxy } = values
    if (mode === "receive" && ends.targets.length > 1) {
      return yield* refuse("target", ends.targets.join(","), "one host:port with mode=1, since visitors come to it")
    }
    const tls = yield* tlsFrom(values)
    const common = {
      log,
      read,
      rate,
      slot,
      proxy,
      proxyIn: values["proxy-in"],
      balance: values.lb,
      check,
      congestion: values.cc
    }
    return { _tag: "Server", ...ends, ...common, tls, max, mode }
  })

const buildClient = (ends: Ends, texts: UrlQuery.Texts): Either.Either<ClientConfig, UrlError> =>
  Either.gen(function* () {
    const values = Schema.decodeUnknownSync(Parameter.Client)(texts)
    const { ca, check, log, min, mode, proxy, rate, read, servers, slot, tls } = values
    if (mode === "forward" && ends.standbys.length > 0) {
      const given = [ends.tunnel, ...ends.standbys].join(",")
      return yield* refuse("tunnel", given, "one host:port with mode=1, since visitors come to it")
    }
    if (mode === "forward" && tls !== "plain") {
      return yield* refuse("tls", texts["tls"] ?? "", "0 with mode=1, which has no server to demand it of")
    }
    // There is no connecting to every interface: the client means the server on its own machine.
    const dialled = (address: Address.Address) =>
      address.host === "" && mode !== "forward" ? Address.make("127.0.0.1", address.port) : address
    const tunnel = dialled(ends.tunnel)
    const standbys = ends.standbys.map(dialled)
    const common = {
      log,
      read,
      rate,
      slot,
      proxy,
      proxyIn: values["proxy-in"],
      balance: values.lb,
      check,
      congestion: values.cc
    }
    return {
      _tag: "Client",
      ...ends,
      ...common,
      tunnel,
      standbys,
      servers,
      tls,
      authorities: Option.fromNullable(ca),
      min,
      mode
    }
  })

const split = (text: string) =>
  Either.gen(function* () {
    const [, scheme = "", rest] = /^([^:/?#@]*):\/\/(.*)$/s.exec(text) ?? []
    if (rest === undefined) {
      return yield* refuse("url", masked(text), "server://host:port/host:port or client://host:port/host:port")
    }
    const role = (["server", "client"] as const).find((role) => role === scheme.toLowerCase())
    if (role === undefined)
      return yield* refuse("scheme", scheme, "server or client; master:// is for the command line alone")
    const at = rest.lastIndexOf("@")
    const userinfo = rest.slice(0, Math.max(at, 0))
    if (/[/?#]/.test(userinfo)) {
      return yield* refuse("key", userinfo, "/ ? # in a key written as %2F %3F %23, and no @ after the key's own")
    }
    const [, tunnel = "", target = "", query = "", fragment] =
      /^([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?(?:#(.*))?$/s.exec(rest.slice(at + 1)) ?? []
    if (fragment !== undefined) return yield* refuse("fragment", `#${fragment}`, "no # and nothing behind it")
    return { role, userinfo, tunnel, target, query }
  })

/** What would end the value, or mean something else, is written with a %. */
const queryText = (value: string): string => value.replace(/[\s%&#+]/g, (char) => encodeURIComponent(char))

const percentDecoded = Option.liftThrowable(decodeURIComponent)

/** `encodeURIComponent` throws for half a surrogate pair. */
const percentEncoded = (text: string): string => encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\ufffd"))

const keyFrom = (userinfo: string): Either.Either<Option.Option<Redacted.Redacted>, UrlError> =>
  Option.match(percentDecoded(userinfo), {
    onNone: () => refuse("key", userinfo, "two hex digits after each %, and % itself written as %25"),
    onSome: (key) => Either.right(key === "" ? Option.none() : Option.some(Redacted.make(key)))
  })

const targetsMost = 64
const serversMost = 16

/** `host:port,host:port` and so on, each once. */
const addressesFrom = (
  part: "target" | "tunnel",
  text: string,
  most: number
): Either.Either<readonly [Address.Address, ...Array<Address.Address>], UrlError> =>
  Either.gen(function* () {
    const noun = part === "target" ? "target" : "server"
    const [first = "", ...others] = text.split(",")
    if (others.length >= most) return yield* refuse(part, text, `${most} ${noun}s at most`)
    const own = [yield* addressFrom(part, first)] as const
    const more: Array<Address.Address> = []
    for (const other of others) more.push(yield* addressFrom(part, other))
    const all = [...own, ...more] as const
    const twice = all.find((address, index) => all.findIndex((other) => String(other) === String(address)) !== index)
    return twice === undefined ? all : yield* refuse(part, String(twice), `each ${noun} once`)
  })

const addressFrom = (part: "tunnel" | "target", text: string): Either.Either<Address.Address, UrlError> => {
  if (text.includes(",")) return refuse(part, text, "one host:port")
  const port = /:(\d*)$/.exec(text)?.[1]
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) {
    return refuse(`${part} port`, port, "a whole number from 1 to 65535")
  }
  return Option.match(Schema.decodeOption(Address.FromText)(text).pipe(Option.filter(isNamed)), {
    onNone: () =>
      refuse(part, text, `host:port, an IPv6 host in brackets${part === "target" ? ", behind the tunnel's /" : ""}`),
    onSome: Either.right
  })
}

const isNamed = ({ host }: Address.Address): boolean => host.includes(":") || /^[\p{L}\p{M}\p{N}._*-]*$/u.test(host)

const overlap = (config: TunnelConfig, target: Address.Address): boolean =>
  serversOf(config).some((tunnel) => isOnePort(config.mode, tunnel, target))

/** Whether both would be one port of this machine, as far as the texts tell. */
const isOnePort = (mode: TunnelConfig["mode"], tunnel: Address.Address, target: Address.Address): boolean => {
  const ends = [tunnel, target]
  if (tunnel.port !== target.port) return false
  if (tunnel.host.toLowerCase() === target.host.toLowerCase()) return true
  if (mode === "receive" && ends.some(Address.isWildcard)) return true
  return ends.every((end) => isAmbiguous(end) || Address.isLoopback(end)) && ends.some(isAmbiguous)
}

/** Whether the host is more than one of this machine's addresses. */
const isAmbiguous = (end: Address.Address): boolean =>
  Address.isWildcard(end) || (Address.isLoopback(end) && end.host.endsWith("localhost"))
