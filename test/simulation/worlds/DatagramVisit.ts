/**
 * A visitor who sends datagrams through a tunnel and expects an answer to each, and the target that answers.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import type * as Address from "../../../src/core/Address.js"
import * as Transport from "../../../src/transport/Transport.js"
import { equal } from "../../Bytes.js"

export interface DatagramVisit {
  readonly arrivesMillis: number
  /** Payload bytes of each datagram, behind the visitor's id and the datagram's number. */
  readonly sizes: ReadonlyArray<number>
  /** Pause after each datagram. */
  readonly gapMillis: number
}

export const arbitrary = (options: {
  readonly latestMillis: number
  readonly maxDatagrams: number
}): FastCheck.Arbitrary<DatagramVisit> =>
  FastCheck.record({
    arrivesMillis: FastCheck.nat(options.latestMillis),
    sizes: FastCheck.array(FastCheck.nat(3000), { minLength: 1, maxLength: options.maxDatagrams, size: "max" }),
    gapMillis: FastCheck.constantFrom(0, 10, 700)
  })

/** How long a visitor waits for answers after its last datagram. */
const patience = Duration.seconds(30)

/** Visits `to` as visitor `id`, which is below 256. */
export const visit = (to: Address.Address, id: number, { arrivesMillis, gapMillis, sizes }: DatagramVisit) =>
  Effect.gen(function* () {
    yield* Effect.sleep(arrivesMillis)
    const socket = yield* (yield* Transport.Transport).associate(to)
    const broken: Array<string> = []
    const answered = new Set<number>()
    const receive = Effect.gen(function* () {
      while (answered.size < sizes.length) {
        for (const { bytes } of yield* Effect.orElseSucceed(socket.receive, () => [])) {
          const number = bytes.at(-2) ?? -1
          if (answered.has(number)) broken.push(`datagram ${number} of visitor ${id} was answered twice`)
          if (!equal(bytes, answerTo(question(id, number, sizes[number] ?? 0)))) {
            broken.push(`datagram ${number} of visitor ${id} got a wrong answer`)
          }
          answered.add(number)
        }
      }
    })
    const receiving = yield* Effect.fork(receive)
    for (const [number, size] of sizes.entries()) {
      yield* socket.send([{ peer: to, bytes: question(id, number, size) }])
      yield* Effect.sleep(gapMillis)
    }
    yield* Effect.timeoutOption(Fiber.join(receiving), patience)
    return { sent: sizes.length, answered: answered.size, broken }
  }).pipe(Effect.scoped, Effect.orDie)

/** Answers each datagram, and counts how often each arrived, by `visitor/number`. */
export const serve = (at: Address.Address, arrivals: Map<string, number>) =>
  Effect.gen(function* () {
    const socket = yield* (yield* Transport.Transport).bind(at)
    while (true) {
      const questions = yield* socket.receive
      for (const { bytes } of questions) {
        const name = `${bytes[0]}/${bytes[1]}`
        arrivals.set(name, (arrivals.get(name) ?? 0) + 1)
      }
      yield* socket.send(questions.map(({ bytes, peer }) => ({ peer, bytes: answerTo(bytes) })))
    }
  }).pipe(Effect.scoped)

// internal

const question = (id: number, number: number, size: number): Uint8Array =>
  Uint8Array.from(
    { length: size + 2 },
    (_, at) => (at === 0 ? id : at === 1 ? number : id * 31 + at * 7 + number) & 0xff
  )

const answerTo = (question: Uint8Array): Uint8Array => question.toReversed()
