/**
 * UDP visitors and targets on loopback, of sockets that a test's world closes.
 */
import * as Dgram from "node:dgram"
import { once } from "node:events"
import type { World } from "./Nodepass.js"

const open = (world: World): Dgram.Socket => {
  const socket = world.own(Dgram.createSocket("udp4"), (socket) => {
    try {
      socket.close()
    } catch {
      // The test has closed it.
    }
  })
  return socket.on("error", () => {})
}

/** A target; each datagram is answered with what `answer` makes of it and of the port that it came from. */
export const listenUdp = async (
  world: World,
  answer: (bytes: Buffer, port: number) => Buffer = (bytes) => bytes,
  port = 0
): Promise<{ readonly port: number }> => {
  const socket = open(world)
  socket.on("message", (bytes, peer) => socket.send(answer(bytes, peer.port), peer.port, peer.address))
  socket.bind(port, "127.0.0.1")
  await once(socket, "listening")
  return { port: socket.address().port }
}

export interface UdpVisitor {
  /** Sends it and waits for the next datagram. */
  readonly ask: (bytes: string | Buffer) => Promise<Buffer>
  /** Sends all, at most `window` of them unanswered at a time, and gives what came back, in the order it came. */
  readonly askAll: (datagrams: ReadonlyArray<Buffer>, window: number) => Promise<ReadonlyArray<Buffer>>
}

/** A visitor, always of the same port. `host` is an address of loopback, which it comes from. */
export const visitUdp = async (world: World, port: number, host = "127.0.0.1"): Promise<UdpVisitor> => {
  const socket = open(world)
  socket.bind(0, host)
  await once(socket, "listening")
  socket.connect(port, "127.0.0.1")
  await once(socket, "connect")
  const askAll: UdpVisitor["askAll"] = (datagrams, window) =>
    new Promise((resolve) => {
      const answers: Array<Buffer> = []
      let sent = 0
      const sendMore = () => {
        while (sent < datagrams.length && sent - answers.length < window) socket.send(datagrams[sent++] ?? "")
      }
      socket.on("message", function listener(bytes) {
        answers.push(bytes)
        if (answers.length < datagrams.length) return sendMore()
        socket.off("message", listener)
        resolve(answers)
      })
      sendMore()
    })
  return {
    ask: async (bytes) => {
      const [answer = Buffer.alloc(0)] = await askAll([Buffer.from(bytes)], 1)
      return answer
    },
    askAll
  }
}
