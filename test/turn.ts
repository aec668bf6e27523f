/**
 * After each test the process gets a turn: a file of nothing but simulations would leave the runner unanswered for so
 * long that it takes it for dead.
 */
import { afterEach } from "vitest"

afterEach(
  () =>
    new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
)
