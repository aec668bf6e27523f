/**
 * A file of its own: it can be loaded only in a test, and the long checks of test/soak load Nodepass.js outside one.
 */
import { afterAll, beforeAll } from "vitest"
import { echoing, makeWorld, tunnel } from "./Nodepass.js"

/**
 * One tunnel for all tests of a `describe`, since each start of a process costs half a second. Each test says what the
 * target does with its connections.
 */
export const sharedTunnel = (options: Omit<Parameters<typeof tunnel>[1], "target">) => {
  const world = makeWorld()
  let handler = echoing
  let made: Awaited<ReturnType<typeof tunnel>>
  beforeAll(async () => {
    const { port: target } = await world.listen((socket) => handler(socket))
    made = await tunnel(world, { ...options, target })
  })
  afterAll(() => world.close())
  return Object.assign(() => made, { serve: (next: typeof handler) => void (handler = next) })
}
