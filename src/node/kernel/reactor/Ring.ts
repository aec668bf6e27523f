/**
 * A queue of records from one thread to another, in shared memory: no system call while the consumer is awake.
 *
 * A record is a row of numbers. Only the consumer moves `head`, only the producer moves `tail`, each after it has finished
 * with the record. The consumer sets `asleep` before its last look at `tail`; the producer looks at `asleep` after its last
 * record. So one of the two sees what the other did, and no wake-up is lost.
 */

export interface Ring {
  readonly memory: SharedArrayBuffer
  /** Appends a record; `false` when the ring is full. */
  readonly push: (record: ReadonlyArray<number>) => boolean
  /** Removes the oldest record. */
  readonly pop: () => ReadonlyArray<number> | undefined
  /** For the producer: whether the consumer sleeps. When `true`, the caller must wake it. */
  readonly mustWake: () => boolean
  /** For the consumer: whether it may sleep now. When `true`, the producer will wake it. */
  readonly maySleep: () => boolean
  /** For the consumer: it is awake, and needs no wake-up. */
  readonly markAwake: () => void
}

/** Numbers in a record, and cells for records. One cell stays empty. */
export interface Shape {
  readonly width: number
  readonly cells: number
}

export const make = (
  { cells, width }: Shape,
  memory = new SharedArrayBuffer(headerBytes + cells * width * Float64Array.BYTES_PER_ELEMENT)
): Ring => {
  const header = new Int32Array(memory, 0, 3)
  const records = new Float64Array(memory, headerBytes)
  const head = () => Atomics.load(header, headIndex)
  const tail = () => Atomics.load(header, tailIndex)
  const next = (cell: number) => (cell + 1) % cells
  return {
    memory,
    push: (record) => {
      const cell = tail()
      if (next(cell) === head()) return false
      for (let index = 0; index < width; index++) records[cell * width + index] = record[index] ?? 0
      Atomics.store(header, tailIndex, next(cell))
      return true
    },
    pop: () => {
      const cell = head()
      if (cell === tail()) return undefined
      const record = Array.from(records.subarray(cell * width, (cell + 1) * width))
      Atomics.store(header, headIndex, next(cell))
      return record
    },
    mustWake: () => Atomics.exchange(header, asleepIndex, 0) === 1,
    maySleep: () => {
      Atomics.store(header, asleepIndex, 1)
      return head() === tail()
    },
    markAwake: () => void Atomics.store(header, asleepIndex, 0)
  }
}

// internal

const [headIndex, tailIndex, asleepIndex] = [0, 1, 2]
/** The records begin at a multiple of 8 bytes, the size of a number. */
const headerBytes = 16
