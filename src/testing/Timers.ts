/**
 * The timers of a simulation, by the time they are due.
 */

export interface Timer {
  readonly at: number
  readonly id: number
  readonly wake: () => void
  /** The index in the heap, `-1` when it is not in the heap. */
  index: number
}

/** A binary heap, the earliest timer first, then the oldest. Each timer knows its index, so that it can be removed. */
export const make = () => {
  const heap: Array<Timer> = []
  let ids = 0

  const before = (left: Timer, right: Timer) => left.at < right.at || (left.at === right.at && left.id < right.id)
  const put = (timer: Timer, index: number) => {
    heap[index] = timer
    timer.index = index
  }
  const rise = (timer: Timer) => {
    for (let index = timer.index; index > 0; index = timer.index) {
      const parent = heap[(index - 1) >> 1]
      if (parent === undefined || before(parent, timer)) return
      put(timer, parent.index)
      put(parent, index)
    }
  }
  const sink = (timer: Timer) => {
    for (;;) {
      const index = timer.index
      const left = heap[2 * index + 1]
      const right = heap[2 * index + 2]
      const child = left !== undefined && right !== undefined && before(right, left) ? right : left
      if (child === undefined || before(timer, child)) return
      put(timer, child.index)
      put(child, index)
    }
  }
  const remove = (timer: Timer): void => {
    const last = timer.index < 0 ? undefined : heap.pop()
    if (last !== undefined && last !== timer) {
      put(last, timer.index)
      rise(last)
      sink(last)
    }
    timer.index = -1
  }

  return {
    /** Adds a timer that wakes once, or never when `at` is infinite. */
    add: (at: number, wake: () => void): Timer => {
      const timer: Timer = { at, id: ids++, wake, index: -1 }
      if (Number.isFinite(at)) {
        timer.index = heap.push(timer) - 1
        rise(timer)
      }
      return timer
    },
    remove,
    /** When the next timer is due. */
    next: (): number | undefined => heap[0]?.at,
    wake: (): void => {
      const [timer] = heap
      if (timer === undefined) return
      remove(timer)
      timer.wake()
    }
  }
}
