/**
 * Long checks of a real tunnel, outside `npm test`. Exit code 1 says that one found a fault.
 *
 * - `npm run soak -- --visitors N --seed S --tls`: while relay threads are killed.
 * - `npm run soak -- --memory --visitors N`: memory of both processes, plain and with TLS.
 * - `npm run soak -- --udp --sessions N`: memory of both processes with many UDP sessions at once.
 */
import { parseArgs } from "node:util"
import * as Memory from "./soak/Memory.js"
import * as RelayThreads from "./soak/RelayThreads.js"
import * as UdpSessions from "./soak/UdpSessions.js"

const { values } = parseArgs({
  options: {
    visitors: { type: "string" },
    sessions: { type: "string" },
    seed: { type: "string" },
    tls: { type: "boolean", default: false },
    memory: { type: "boolean", default: false },
    udp: { type: "boolean", default: false }
  }
})
const visitors = Number(values.visitors ?? (values.memory ? 60_000 : 100_000))
const sessions = Number(values.sessions ?? 5000)
const seed = Number(values.seed ?? 1)
if (![visitors, sessions].every((count) => Number.isSafeInteger(count) && count > 0) || !Number.isSafeInteger(seed)) {
  console.error("soak: expected --visitors and --sessions <a whole number above 0> and --seed <a whole number>")
  process.exit(2)
}

const check = async (): Promise<boolean> => {
  if (values.udp) return UdpSessions.run(sessions)
  if (!values.memory) return RelayThreads.run({ visitors, seed, tls: values.tls })
  const isFlat = values.tls || (await Memory.run({ visitors, tls: false }))
  return (await Memory.run({ visitors, tls: true })) && isFlat
}

process.exitCode = (await check()) ? 0 : 1
