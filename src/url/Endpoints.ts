/**
 * The addresses in a tunnel's command URL, `host:port` or several with commas between them.
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Address from "../core/Address.js"
import { refuse, type UrlError } from "./UrlError.js"

/** The part before or after the `/`, for the error. */
export type Part = "tunnel" | "target"

export type Addresses = readonly [Address.Address, ...ReadonlyArray<Address.Address>]

/** One address. */
export const parseOne = (part: Part, text: string): Either.Either<Address.Address, UrlError> => {
  if (text.includes(",")) return refuse(part, text, "one host:port")
  const port = /:(\d*)$/.exec(text)?.[1]
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) {
    return refuse(`${part} port`, port, "a whole number from 1 to 65535")
  }
  return Option.match(Schema.decodeOption(Address.FromText)(text).pipe(Option.filter(hasValidHost)), {
    onNone: () =>
      refuse(part, text, `host:port, an IPv6 host in brackets${part === "target" ? ", after the tunnel's /" : ""}`),
    onSome: Either.right
  })
}

/** Addresses with commas between them, each once. */
export const parseSeveral = (part: Part, text: string): Either.Either<Addresses, UrlError> =>
  Either.gen(function* () {
    const { max, noun } = limits[part]
    const [first = "", ...others] = text.split(",")
    if (others.length >= max) return yield* refuse(part, text, `at most ${max} ${noun}s`)
    const parsed = [yield* parseOne(part, first)] as const
    const more: Array<Address.Address> = []
    for (const other of others) more.push(yield* parseOne(part, other))
    const all = [...parsed, ...more] as const
    const repeated = all.find((address, index) => all.findIndex((other) => String(other) === String(address)) !== index)
    return repeated === undefined ? all : yield* refuse(part, String(repeated), `each ${noun} once`)
  })

/** Fails when a target is certainly a port that the tunnel itself listens on. */
export const refuseOwnPort = (
  servers: Addresses,
  targets: Addresses,
  { listensAtTarget }: { readonly listensAtTarget: boolean }
): Either.Either<void, UrlError> => {
  const own = targets.find((target) => servers.some((tunnel) => isSamePort(tunnel, target, listensAtTarget)))
  return own === undefined
    ? Either.void
    : refuse("target port", String(own.port), "another port than the tunnel's on the same address")
}

// internal

const limits = { target: { max: 64, noun: "target" }, tunnel: { max: 16, noun: "server" } }

const hasValidHost = ({ host }: Address.Address): boolean =>
  host.includes(":") || /^[\p{L}\p{M}\p{N}._*-]*$/u.test(host)

/** Whether both are the same port of this machine, as far as the texts show. */
const isSamePort = (tunnel: Address.Address, target: Address.Address, listensAtTarget: boolean): boolean => {
  const both = [tunnel, target]
  if (tunnel.port !== target.port) return false
  if (tunnel.host.toLowerCase() === target.host.toLowerCase()) return true
  if (listensAtTarget && both.some(Address.isWildcard)) return true
  return both.every((end) => isAmbiguous(end) || Address.isLoopback(end)) && both.some(isAmbiguous)
}

/** Whether the host stands for several addresses of this machine. */
const isAmbiguous = (end: Address.Address): boolean =>
  Address.isWildcard(end) || (Address.isLoopback(end) && end.host.endsWith("localhost"))
