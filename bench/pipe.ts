/**
 * A plain Node hop: what comes is piped to a port, and back. Prints its own port.
 */
import * as Net from "node:net"
import process from "node:process"

const to = Number(process.argv[2])
const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (left) => {
  const right = Net.connect({ port: to, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  left.on("error", () => right.destroy()).pipe(right)
  right.on("error", () => left.destroy()).pipe(left)
})
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  const address = server.address()
  console.log(typeof address === "object" && address !== null ? address.port : 0)
})
