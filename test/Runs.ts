/**
 * How much a run of the tests does, and the seed of its random inputs. Nothing else reads these from the environment.
 */
import nodeProcess from "node:process"

/** Whether this is `npm run test:long`. */
export const isLong = nodeProcess.env["NODEPASS_TEST"] === "long"

/** How many inputs, worlds or rounds a test takes: `usual` in `npm test`, `long` in `npm run test:long`. */
export const runs = (usual: number, long: number): number => (isLong ? long : usual)

/** Every random input of this run derives from it. `NODEPASS_SEED` sets it; otherwise vitest.config.ts draws one. */
export const seed: number = Number(nodeProcess.env["NODEPASS_SEED"] ?? 1) | 0

/** A test that takes longer hangs. Properties stop drawing before, so that a failure has time to shrink. */
export const timeLimitMillis = runs(180_000, 3_600_000)
