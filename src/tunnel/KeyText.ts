/**
 * Tunnel keys as people write them: fresh ones, and whether one can be guessed.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Crypto } from "../transport/Crypto.js"

/** A fresh key: 26 letters and digits with 130 random bits. It can be part of a URL as it is. */
export const generate: Effect.Effect<Redacted.Redacted, never, Crypto> = Effect.flatMap(Crypto, (crypto) =>
  Effect.map(crypto.randomBytes(26), (bytes) =>
    Redacted.make(Array.from(bytes, (byte) => base32.charAt(byte & 31)).join(""))
  )
)

/** `Common`: many people use the key or a variant of it. `Short`: fewer than 64 bits, by its length and characters. */
export type Weakness = "Common" | "Short"

/**
 * Why someone who recorded a handshake could find the key by trying others; `None` when that is not known.
 *
 * An estimate: a key of random characters is judged rightly, a sentence from a book is not.
 */
export const weakness = (key: Redacted.Redacted): Option.Option<Weakness> => {
  const text = Redacted.value(key).slice(0, maxJudged)
  if (isCommon(text)) return Option.some("Common")
  return bits(text) < minBits ? Option.some("Short") : Option.none()
}

/** A warning about the key, as one sentence; `None` when it is not weak. */
export const warning = (key: Redacted.Redacted): Option.Option<string> =>
  Option.map(
    weakness(key),
    (weakness) =>
      `the tunnel key is ${weakness === "Common" ? "one that many people use" : "short or simple"}: ` +
      "an attacker who records a connection can guess it. `nodepass key` makes a good one"
  )

// internal

const base32 = "abcdefghijklmnopqrstuvwxyz234567"

const minBits = 64
/** More characters than this make no key weaker. */
const maxJudged = 128
/** A few digits or signs at the ends do not make a common key harder to guess. */
const maxAround = 6
/** What a letter of a word is worth in a key of several words: six words from a list have 77 bits in some 30 letters. */
const bitsPerLetterOfWords = 2.5

/** Bits of a key whose characters are random, after repetitions and sequences are left out. */
const bits = (text: string): number => {
  const chars = Array.from(unrepeated(text))
  const surprising = chars.filter((char, at) => !continues(chars, at, char)).length
  if (/^\p{L}\p{Ll}{2,}(?:[ ._-]\p{L}\p{Ll}{2,}){2,}$/u.test(text)) return surprising * bitsPerLetterOfWords
  return surprising * Math.log2(alphabetOf(text))
}

/** The part that the text repeats: `abc` for `abcabcab`. */
const unrepeated = (text: string): string => {
  for (let period = 1; period <= text.length / 2; period++) {
    if (text.slice(period) === text.slice(0, -period)) return text.slice(0, period)
  }
  return text
}

/** Whether the two characters before and this one are a sequence: `aaa`, `123`, `cba`. */
const continues = (chars: ReadonlyArray<string>, at: number, char: string): boolean => {
  const [first, second] = chars.slice(Math.max(0, at - 2), at)
  if (first === undefined || second === undefined) return false
  const step = codeOf(char) - codeOf(second)
  return Math.abs(step) <= 1 && step === codeOf(second) - codeOf(first)
}

const codeOf = (char: string): number => char.codePointAt(0) ?? 0

/** How many characters the key could have been made of. */
const alphabetOf = (text: string): number => {
  if (/^[0-9a-f]+$/.test(text) || /^[0-9A-F]+$/.test(text)) return /\D/.test(text) ? 16 : 10
  const classes = [
    [/[a-z]/, 26],
    [/[A-Z]/, 26],
    [/[0-9]/, 10],
    [/[!-/:-@[-`{-~ ]/, 33],
    [/[^ -~]/, 100]
  ] as const
  return classes.reduce((size, [pattern, count]) => size + (pattern.test(text) ? count : 0), 0)
}

/** Whether it is one of the list, also with other capitals, with digits for letters, and with digits or signs around it. */
const isCommon = (text: string): boolean => {
  const lower = text.toLowerCase()
  const plain = (text: string) => text.replaceAll(/[0134578@$!]/g, (char) => letterFor[char] ?? char)
  const letters = lower.replaceAll(/^[^\p{L}]+|[^\p{L}]+$/gu, "")
  const bare = lower.length - letters.length <= maxAround ? letters : lower
  return [lower, plain(lower), bare, plain(bare)].some((text) => common.has(text.replaceAll(/[ ._-]/g, "")))
}

const letterFor: Readonly<Record<string, string>> = {
  "0": "o",
  "1": "i",
  "3": "e",
  "4": "a",
  "5": "s",
  "7": "t",
  "8": "b",
  "@": "a",
  $: "s",
  "!": "i"
}

/** The passwords that leaks show most often, and what examples and products use. Lowercase, without separators. */
const common: ReadonlySet<string> = new Set(
  (
    "123456 1234567 12345678 123456789 1234567890 0123456789 111111 000000 123123 654321 666666 888888 112233 121212 " +
    "987654321 1q2w3e 1q2w3e4r 1q2w3e4r5t 1qaz2wsx qazwsx qazwsxedc zaq12wsx qwerty qwerty123 qwertyuiop qwertz azerty " +
    "asdf asdfgh asdfghjkl zxcvbn zxcvbnm abc abc123 abcd1234 abcdef a1b2c3 " +
    "password passwort passwd pass passw0rd passphrase secret topsecret mysecret supersecret secretkey sharedsecret key " +
    "mykey yourkey apikey thekey tunnelkey testkey samplekey examplekey presharedkey psk token mytoken auth changeme " +
    "changethis replaceme default admin administrator root toor user username guest login welcome letmein iloveyou " +
    "monkey dragon master shadow sunshine princess football baseball superman batman trustno whatever freedom " +
    "starwars pokemon computer internet test testing tester test123 demo example sample temp temporary foo bar foobar " +
    "hello helloworld nodepass nodepasskey nodepasseffect tunnel server client proxy vpn wireguard docker kubernetes " +
    "ubuntu debian raspberry raspberrypi localhost homelab home company correcthorsebatterystaple hunter thisisasecret"
  ).split(" ")
)
