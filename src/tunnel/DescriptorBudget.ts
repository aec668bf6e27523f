/**
 * What the limit of file descriptors is enough for. A visitor needs two: its own connection, and the one to the other side
 * or to the target.
 */
import * as Effect from "effect/Effect"
import { Transport } from "../transport/Transport.js"
import * as Parameter from "../url/Parameter.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"

/** The maximum number of idle pool connections, so that the pool leaves three quarters of the descriptors to visitors. */
export const poolLimit = (max: number): Effect.Effect<number, never, Transport> =>
  Effect.map(Transport, ({ descriptorLimit }) =>
    Math.min(max, Math.max(1, Math.floor((descriptorLimit - ownDescriptors) / 4)))
  )

/** Logs a warning when the limit is below what the config needs. */
export const check = (config: TunnelConfig): Effect.Effect<void, never, Transport> =>
  Effect.flatMap(Transport, ({ descriptorLimit }) => {
    const [pool, poolText] =
      config._tag === "Server" ? [config.max, `max=${config.max}`] : [config.min, `min=${config.min}`]
    const needed = 2 * visitorsNeeded(config.slot) + pool + ownDescriptors
    if (descriptorLimit >= needed) return Effect.void
    const left = descriptorLimit - ownDescriptors - Math.min(pool, Math.floor((descriptorLimit - ownDescriptors) / 4))
    const slot = Number.isFinite(config.slot) ? config.slot : 0
    return Effect.logWarning(
      `the limit of ${descriptorLimit} file descriptors is too low for slot=${slot} and ${poolText}: ` +
        `it is enough for about ${Math.max(0, Math.floor(left / 2))} visitors at the same time, and others wait or are refused; ` +
        `raise it with ulimit -n, or LimitNOFILE of systemd`
    )
  })

// internal

/** What a process has open beside visitors and pool: files, ports, epoll, threads, pipes of the relay. */
const ownDescriptors = 64

/** The visitors that the limit must be enough for: `slot` if the URL sets it. The default of `slot` is only a bound, so then 1024. */
const visitorsNeeded = (slot: number): number => {
  const initial = Number(Parameter.byRole.server.find(({ name }) => name === "slot")?.default)
  return slot === initial || !Number.isFinite(slot) ? Math.min(slot, expectedVisitors) : slot
}

const expectedVisitors = 1024
