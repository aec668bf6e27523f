/**
 * A host and a port, where a socket listens or connects to.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"

/** A TCP or UDP port; `0` asks the system for a free one. */
export const Port = Schema.Int.pipe(Schema.between(0, 65535), Schema.brand("Port"))
export type Port = typeof Port.Type

/** A host (IPv4, IPv6 without brackets, or a name; `""` is every interface) and a port. */
export class Address extends Schema.Class<Address>("nodepass/Address")({ host: Schema.String, port: Port }) {
  /** `host:port`, an IPv6 host in brackets. */
  override toString(): string {
    return this.host.includes(":") ? `[${this.host}]:${this.port}` : `${this.host}:${this.port}`
  }
}

const isPort = (port: number): port is Port => Number.isInteger(port) && port >= 0 && port <= 65535

// Without the Schema's check of both fields, which takes 15 µs: each connection makes two addresses.
export const make = (host: string, port: number): Address =>
  new Address({ host, port: isPort(port) ? port : Port.make(port) }, { disableValidation: true })

const pattern = /^(?:\[([0-9a-fA-F:.%\w]*:[0-9a-fA-F:.%\w]*)\]|([^\s:/?#[\]@,]*)):(\d{1,5})$/

/** `127.0.0.1:80`, `[::1]:80`, `example.org:80`, `:80`. */
export const FromText: Schema.Schema<Address, string> = Schema.transformOrFail(
  Schema.String,
  Schema.typeSchema(Address),
  {
    strict: true,
    encode: (address) => ParseResult.succeed(String(address)),
    decode: (text, _, ast) =>
      Either.fromOption(fromText(text), () => new ParseResult.Type(ast, text, "expected host:port"))
  }
)

/** Decodes like `FromText`, in a tenth of its time. */
export const fromText = (text: string): Option.Option<Address> => {
  const match = pattern.exec(text)
  const port = Number(match?.[3])
  return match === null || port > 65535 ? Option.none() : Option.some(make(match[1] ?? match[2] ?? "", port))
}

/** Whether the host means every interface of this machine. */
export const isWildcard = ({ host }: Address): boolean =>
  host === "" || host === "0.0.0.0" || host === "::" || host === "*"

/** Whether the host is a loopback address or name. No name is looked up. */
export const isLoopback = ({ host }: Address): boolean =>
  host === "localhost" ||
  host.endsWith(".localhost") ||
  /^127(\.\d{1,3}){3}$/.test(host) ||
  host === "::1" ||
  /^::ffff:127(\.\d{1,3}){3}$/i.test(host)
