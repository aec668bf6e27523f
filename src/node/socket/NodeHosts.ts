/**
 * IP addresses: what a host name resolves to, and which addresses belong to this machine.
 */
import * as Effect from "effect/Effect"
import * as Dns from "node:dns"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Address from "../../core/Address.js"
import type { Transport } from "../../transport/Transport.js"

export interface IpAddress {
  readonly host: string
  readonly family: 4 | 6
}

/** The address of a socket. An IPv4-mapped IPv6 address becomes the IPv4 address. */
export const addressOf = (host: string, port: number): Address.Address =>
  Address.make(/^::ffff:[\d.]+$/i.test(host) ? host.slice(7) : host, port)

/**
 * Resolves a host name now. An address resolves to itself, and an empty name or `*` to this machine.
 *
 * Fails with the error of `dns.lookup`.
 */
export const lookup = (name: string): Effect.Effect<ReadonlyArray<IpAddress>, NodeJS.ErrnoException> => {
  const host = name === "" || name === "*" ? "localhost" : name
  const literal = Net.isIP(host)
  if (literal !== 0) return Effect.succeed([{ host, family: literal === 6 ? 6 : 4 }])
  return Effect.async((resume) => {
    Dns.lookup(host, { all: true }, (error, found) =>
      resume(
        error === null
          ? Effect.succeed(found.map(({ address, family }) => ({ host: address, family: family === 6 ? 6 : 4 })))
          : Effect.fail(error)
      )
    )
  })
}

/** See `Transport`. */
export const reaches: Transport["Type"]["reaches"] = (target, own) =>
  Effect.all([hostsOf(target), hostsOf(own)]).pipe(
    Effect.map(([targetHosts, ownHosts]) =>
      targetHosts.some((host) => ownHosts.includes(host) || (Address.isWildcard(own) && isOwn(host)))
    ),
    Effect.orElseSucceed(() => false)
  )

// internal

const hostsOf = (address: Address.Address) =>
  Effect.map(lookup(Address.isWildcard(address) ? "localhost" : address.host), (found) =>
    found.map(({ host }) => addressOf(host, 0).host)
  )

const isOwn = (host: string): boolean =>
  Address.isLoopback(Address.make(host, 0)) ||
  Object.values(Os.networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === host))
