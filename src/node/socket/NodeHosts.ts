/**
 * Which hosts names stand for, and which of them are this machine.
 */
import * as Effect from "effect/Effect"
import * as Dns from "node:dns"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Address from "../../core/Address.js"
import type { Transport } from "../../transport/Transport.js"
import { addressOf } from "./NodeConnection.js"

/** One of the addresses of a host. */
export interface Way {
  readonly host: string
  readonly family: 4 | 6
}

/** Where a name leads now; an address leads to itself, and no host to this machine. Fails as `dns.lookup` does. */
export const lookup = (name: string): Effect.Effect<ReadonlyArray<Way>, NodeJS.ErrnoException> => {
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

export const reaches: Transport["Type"]["reaches"] = (target, own) =>
  Effect.all([hostsOf(target), hostsOf(own)]).pipe(
    Effect.map(([targets, owns]) =>
      targets.some((host) => owns.includes(host) || (Address.isWildcard(own) && isOwn(host)))
    ),
    Effect.orElseSucceed(() => false)
  )

// internal

const hostsOf = (address: Address.Address) =>
  Effect.map(lookup(Address.isWildcard(address) ? "localhost" : address.host), (ways) =>
    ways.map(({ host }) => addressOf(host, 0).host)
  )

const isOwn = (host: string): boolean =>
  Address.isLoopback(Address.make(host, 0)) ||
  Object.values(Os.networkInterfaces()).some((all) => all?.some(({ address }) => address === host))
