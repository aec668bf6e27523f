/**
 * Whether the limit of file descriptors is enough for what a tunnel is asked to serve.
 */
import * as Effect from "effect/Effect"
import * as Capacity from "../relay/Capacity.js"
import * as Parameter from "../url/Parameter.js"
import type { TunnelConfig } from "../url/TunnelUrl.js"

/** Logs a warning when the limit is below what the config needs. */
export const check = (config: TunnelConfig): Effect.Effect<void, never, Capacity.Capacity> =>
  Effect.flatMap(Capacity.Capacity, (capacity) => {
    const { descriptors } = capacity
    const [pool, poolText] =
      config._tag === "Server" ? [config.max, `max=${config.max}`] : [config.min, `min=${config.min}`]
    const needed = Capacity.descriptorsPerVisitor * visitorsNeeded(config.slot) + pool + Capacity.ownDescriptors
    if (descriptors >= needed) return Effect.void
    const left = descriptors - Capacity.ownDescriptors - Capacity.poolLimit(capacity, pool)
    const slot = Number.isFinite(config.slot) ? config.slot : 0
    return Effect.logWarning(
      `the limit of ${descriptors} file descriptors is too low for slot=${slot} and ${poolText}: ` +
        `it is enough for about ${Math.max(0, Math.floor(left / Capacity.descriptorsPerVisitor))} visitors at the same time, and others wait or are refused; ` +
        `raise it with ulimit -n, or LimitNOFILE of systemd`
    )
  })

// internal

/** The visitors that the limit must be enough for: `slot` if the URL sets it. The default of `slot` is only a bound, so then 1024. */
const visitorsNeeded = (slot: number): number => {
  const initial = Number(Parameter.byRole.server.find(({ name }) => name === "slot")?.default)
  return slot === initial || !Number.isFinite(slot) ? Math.min(slot, expectedVisitors) : slot
}

const expectedVisitors = 1024
