/**
 * The command URL of a tunnel: `server://key@host:port/host:port?parameters`, or the same with `client://`.
 */
import * as Arr from "effect/Array"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import * as Address from "../core/Address.js"
import type { Level } from "../core/LogLine.js"
import * as TlsMode from "../core/TlsMode.js"
import * as Endpoints from "./Endpoints.js"
import * as Parameter from "./Parameter.js"
import * as ServerTls from "./ServerTls.js"
import { masked, refuse, type UrlError } from "./UrlError.js"
import * as UrlQuery from "./UrlQuery.js"
import * as UrlReport from "./UrlReport.js"

export { UrlError } from "./UrlError.js"

const endpoints = {
  /** The tunnel key, which both sides must have; `None`: no authentication. */
  key: Schema.OptionFromSelf(Schema.RedactedFromSelf(Schema.String)),
  /** Where the server listens for clients, and the client connects first; or, forwarding, where it listens for visitors. */
  tunnel: Schema.typeSchema(Address.Address),
  /**
   * Where visitors are connected to; on the side that listens for visitors, the one address where it listens. An empty host
   * is every interface.
   */
  targets: Schema.NonEmptyArray(Schema.typeSchema(Address.Address))
}

/** A server: the endpoints, and the parameters that `Parameter.ts` describes. */
export const ServerConfig = Schema.typeSchema(
  Schema.TaggedStruct("Server", {
    ...endpoints,
    ...Struct.omit(Parameter.Server.fields, "crt", "crtKey"),
    tls: ServerTls.ServerTls
  })
)
export type ServerConfig = typeof ServerConfig.Type

/** A client: the endpoints, and the parameters that `Parameter.ts` describes. */
export const ClientConfig = Schema.typeSchema(
  Schema.TaggedStruct("Client", {
    ...endpoints,
    /** Further servers, the preferred first. */
    standbys: Schema.Array(Schema.typeSchema(Address.Address)),
    ...Parameter.Client.fields
  })
)
export type ClientConfig = typeof ClientConfig.Type

export const TunnelConfig = Schema.Union(ServerConfig, ClientConfig).annotations({ identifier: "TunnelConfig" })
export type TunnelConfig = typeof TunnelConfig.Type

/** What a master adds to the URLs of its tunnels where they do not set it. */
export interface Defaults {
  readonly log: Level
  /** For servers. */
  readonly tls: ServerTls.ServerTls
}

/** A URL as it was given, with defaults appended to its query, and its config. */
export interface Completed {
  readonly text: string
  readonly config: TunnelConfig
}

/** The description of every parameter: what the documentation is made from. */
export const parameters = Parameter.all

/** Text ⇄ config. The text that it makes contains the key. */
export const FromText: Schema.Schema<TunnelConfig, string> = Schema.transformOrFail(Schema.String, TunnelConfig, {
  strict: true,
  encode: (config) => ParseResult.succeed(format(config, { key: "shown" })),
  decode: (text, _, ast) =>
    ParseResult.mapError(parse(text), (error) => new ParseResult.Type(ast, masked(text), error.message))
})

/** The config that the text describes. White space around the text is ignored. */
export const parse = (text: string): Either.Either<TunnelConfig, UrlError> =>
  Either.gen(function* () {
    const parts = yield* split(text.trim())
    const config = yield* parts.role === "server" ? serverFrom(parts) : clientFrom(parts)
    yield* Endpoints.refuseOwnPort(serversOf(config), config.targets, { listensAtTarget: config.mode === "receive" })
    return config
  })

/** Appends the defaults that the text does not set. Fails when the result is invalid. */
export const complete = (text: string, { log, tls }: Defaults): Either.Either<Completed, UrlError> =>
  Either.gen(function* () {
    const given = text.trim()
    const { query, role } = yield* split(given)
    const set = yield* UrlQuery.parse(role, query)
    const tlsTexts = Schema.encodeSync(Parameter.Server.pick("tls", "crt", "crtKey"))(ServerTls.toParameters(tls))
    // A server with another `tls` does not use the certificate files of the defaults.
    const hasDefaultTls = role === "server" && (set["tls"] === undefined || set["tls"] === tlsTexts.tls)
    const defaults: UrlQuery.Texts = { log, ...(hasDefaultTls ? tlsTexts : {}) }
    const missing = Object.entries(defaults).filter(([name]) => set[name] === undefined)
    const completed = UrlQuery.append(given, role, Object.fromEntries(missing))
    return { text: completed, config: yield* parse(completed) }
  })

/** Whether the text has the scheme of a server's URL; the rest may be invalid. */
export const hasServerScheme = (text: string): boolean => /^\s*server:/i.test(text)

/** The URL with every default written out. The key is `***` unless `key` is `shown`. */
export const format = (config: TunnelConfig, options?: { readonly key?: "masked" | "shown" | undefined }): string => {
  const role = roleOf(config)
  const userinfo = Option.match(config.key, {
    onNone: () => "",
    onSome: (key) => `${options?.key === "shown" ? percentEncoded(Redacted.value(key)) : "***"}@`
  })
  const query = UrlQuery.format(role, textsOf(config))
  return `${role}://${userinfo}${serversOf(config).join(",")}/${config.targets.join(",")}?${query}`
}

/** What each part of the URL means, defaults included. The key is masked. */
export const describe = (config: TunnelConfig): ReadonlyArray<UrlReport.Row> => {
  const hasKey = Option.isSome(config.key)
  return [
    { part: "role", value: roleOf(config), meaning: roleMeaning[config._tag], isDefault: false },
    {
      part: "key",
      value: hasKey ? "***" : "none",
      meaning: hasKey ? "both sides must have it" : "anyone who reaches the tunnel address may connect",
      isDefault: !hasKey
    },
    { part: "tunnel", value: serversOf(config).join(","), meaning: tunnelMeaning[config._tag], isDefault: false },
    { part: "target", value: config.targets.join(","), meaning: targetMeaning[config.mode], isDefault: false },
    ...UrlReport.parameterRows(roleOf(config), textsOf(config))
  ]
}

/** The formatted URL, and what each part means, as lines of text. */
export const report = (config: TunnelConfig): string => UrlReport.format(format(config), describe(config))

// internal

const roleMeaning = { Server: "listens for a client", Client: "connects to a server, or forwards without one" }
const tunnelMeaning = {
  Server: "where clients connect",
  Client: "the server, or several; with forwarding, where visitors connect"
}
const targetMeaning = {
  auto: "where visitors connect, or where they are connected to; see mode",
  receive: "where visitors connect",
  send: "where visitors are connected to",
  forward: "where visitors are connected to",
  through: "where visitors connect, or where they are connected to; the server decides"
}

interface Parts {
  readonly role: "server" | "client"
  readonly userinfo: string
  readonly tunnel: string
  readonly target: string
  readonly query: string
}

const split = (text: string): Either.Either<Parts, UrlError> =>
  Either.gen(function* () {
    const [, scheme = "", rest] = /^([^:/?#@]*):\/\/(.*)$/s.exec(text) ?? []
    if (rest === undefined) {
      return yield* refuse("url", masked(text), "server://host:port/host:port or client://host:port/host:port")
    }
    const role = (["server", "client"] as const).find((role) => role === scheme.toLowerCase())
    if (role === undefined) {
      return yield* refuse("scheme", scheme, "server or client; only the command line accepts master://")
    }
    const at = rest.lastIndexOf("@")
    const userinfo = rest.slice(0, Math.max(at, 0))
    if (/[/?#]/.test(userinfo)) {
      return yield* refuse(
        "key",
        userinfo,
        "/ ? # in the key written as %2F %3F %23, and no @ after the one that ends it"
      )
    }
    const [, tunnel = "", target = "", query = "", fragment] =
      /^([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?(?:#(.*))?$/s.exec(rest.slice(at + 1)) ?? []
    if (fragment !== undefined)
      return yield* refuse("fragment", `#${fragment}`, "none; a # in a value is written as %23")
    return { role, userinfo, tunnel, target, query }
  })

const serverFrom = (parts: Parts): Either.Either<ServerConfig, UrlError> =>
  Either.gen(function* () {
    const key = yield* keyFrom(parts.userinfo)
    const tunnel = yield* Endpoints.parseOne("tunnel", parts.tunnel)
    const targets = yield* Endpoints.parseSeveral("target", parts.target)
    const { crt, crtKey, tls, ...values } = yield* UrlQuery.decode("server", Parameter.Server, parts.query)
    if (values.mode === "receive" && targets.length > 1) {
      return yield* refuse("target", targets.join(","), "one host:port with mode=1, which listens there for visitors")
    }
    return {
      _tag: "Server",
      key,
      tunnel,
      targets,
      ...values,
      tls: yield* ServerTls.fromParameters({ tls, crt, crtKey })
    }
  })

const clientFrom = (parts: Parts): Either.Either<ClientConfig, UrlError> =>
  Either.gen(function* () {
    const key = yield* keyFrom(parts.userinfo)
    const servers = yield* Endpoints.parseSeveral("tunnel", parts.tunnel)
    const targets = yield* Endpoints.parseSeveral("target", parts.target)
    const values = yield* UrlQuery.decode("client", Parameter.Client, parts.query)
    if (values.mode === "forward" && servers.length > 1) {
      return yield* refuse("tunnel", servers.join(","), "one host:port with mode=1, which listens there for visitors")
    }
    if (values.mode === "forward" && values.tls !== "plain") {
      return yield* refuse("tls", TlsMode.toDigit(values.tls), "0 with mode=1, which connects to no server")
    }
    // An empty host cannot be connected to: it stands for the server on this machine.
    const [tunnel, ...standbys] = Arr.map(servers, (address) =>
      address.host === "" && values.mode !== "forward" ? Address.make("127.0.0.1", address.port) : address
    )
    return { _tag: "Client", key, tunnel, standbys, targets, ...values }
  })

/** The addresses in the tunnel's place. */
const serversOf = (config: TunnelConfig): Endpoints.Addresses =>
  config._tag === "Server" ? [config.tunnel] : [config.tunnel, ...config.standbys]

const roleOf = ({ _tag }: TunnelConfig): Parts["role"] => (_tag === "Server" ? "server" : "client")

const textsOf = (config: TunnelConfig): UrlQuery.Texts =>
  config._tag === "Server"
    ? Schema.encodeSync(Parameter.Server)({ ...config, ...ServerTls.toParameters(config.tls) })
    : Schema.encodeSync(Parameter.Client)(config)

const percentDecoded = Option.liftThrowable(decodeURIComponent)

/** `encodeURIComponent` throws for half a surrogate pair. */
const percentEncoded = (text: string): string => encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\ufffd"))

const keyFrom = (userinfo: string): Either.Either<Option.Option<Redacted.Redacted>, UrlError> =>
  Option.match(percentDecoded(userinfo), {
    onNone: () => refuse("key", userinfo, "two hex digits after each %, and % itself written as %25"),
    onSome: (key) => Either.right(key === "" ? Option.none() : Option.some(Redacted.make(key)))
  })
