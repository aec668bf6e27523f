/**
 * Records that one thread leaves and another takes, in order, without a system call while the taker is awake.
 *
 * A record is a row of numbers. Only the taker moves `head`, only the giver `tail`, each after it is done with the
 * record. The taker says that it is going to sleep before its last look, the giver looks at that after its last record:
 * one of the two sees the other.
 */

export interface Ring {
  readonly memory: SharedArrayBuffer
  /** Leaves a record, unless there is no room. */
  readonly give: (record: ReadonlyArray<number>) => boolean
  /** The next record, if there is one. */
  readonly take: () => ReadonlyArray<number> | undefined
  /** Whether the taker has to be woken, which is then the caller's to do. */
  readonly mustWake: () => boolean
  /** The taker's: whether it may sleep, after which the giver wakes it. */
  readonly maySleep: () => boolean
  readonly wakeUp: () => void
}

/** Numbers in a record, and records there is room for. */
export interface Shape {
  readonly width: number
  readonly room: number
}

export const make = (
  { room, width }: Shape,
  memory = new SharedArrayBuffer(headerBytes + room * width * Float64Array.BYTES_PER_ELEMENT)
): Ring => {
  const header = new Int32Array(memory, 0, 3)
  const records = new Float64Array(memory, headerBytes)
  const head = () => Atomics.load(header, headAt)
  const tail = () => Atomics.load(header, tailAt)
  const next = (at: number) => (at + 1) % room
  return {
    memory,
    give: (record) => {
      const at = tail()
      if (next(at) === head()) return false
      for (let index = 0; index < width; index++) records[at * width + index] = record[index] ?? 0
      Atomics.store(header, tailAt, next(at))
      return true
    },
    take: () => {
      const at = head()
      if (at === tail()) return undefined
      const record = Array.from(records.subarray(at * width, (at + 1) * width))
      Atomics.store(header, headAt, next(at))
      return record
    },
    mustWake: () => Atomics.exchange(header, asleepAt, 0) === 1,
    maySleep: () => {
      Atomics.store(header, asleepAt, 1)
      return head() === tail()
    },
    wakeUp: () => void Atomics.store(header, asleepAt, 0)
  }
}

// internal

const [headAt, tailAt, asleepAt] = [0, 1, 2]
/** The records begin at a multiple of their numbers' size. */
const headerBytes = 16
