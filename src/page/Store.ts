/**
 * The page's state at work: it is signed in, follows the master's events, and asks how the machine is.
 */
import { useEffect, useReducer } from "preact/hooks"
import * as Api from "./Api.js"
import * as EventFeed from "./EventFeed.js"
import { nothing, reduce, type State } from "./State.js"

export interface Store {
  readonly state: State
  readonly signIn: (key: string) => Promise<void>
  readonly signOut: () => void
}

export const useStore = (): Store => {
  const [state, dispatch] = useReducer(reduce, nothing)

  const signOut = (why: string) => {
    sessionStorage.removeItem(keyName)
    dispatch({ _tag: "SignedOut", why })
  }
  const signIn = async (key: string) => {
    // Anything else cannot stand in a header.
    if (!/^[\x21-\x7e]+$/.test(key)) return signOut("API key: expected 32 hex digits")
    const api = Api.make(key)
    sessionStorage.setItem(keyName, key)
    try {
      const info = await api.get<Api.MasterInfo>("info")
      dispatch({ _tag: "SignedIn", api, info })
    } catch (error) {
      signOut(error instanceof Api.Refused ? error.message : "the master does not answer")
    }
  }

  useEffect(() => {
    const key = rememberedKey()
    if (key !== "") void signIn(key)
  }, [])

  useEffect(() => {
    const { api } = state
    if (api === undefined) return
    const look = () => {
      if (document.hidden) return
      api.get<Api.MasterInfo>("info").then(
        (info) => dispatch({ _tag: "Info", info, now: Date.now() }),
        () => undefined
      )
    }
    const timer = setInterval(look, infoEvery)
    // Several events at once are drawn once.
    let events: Array<Api.Event> = []
    let anew = false
    const flush = () => {
      dispatch({ _tag: "Events", events, anew, now: Date.now() })
      events = []
      anew = false
    }
    const leave = EventFeed.follow(api, {
      onAnew: () => {
        events.length = 0
        anew = true
      },
      onEvent: (event) => {
        if (event.type !== "log" && events.push(event) === 1) setTimeout(flush, together)
      },
      onState: (live) => dispatch({ _tag: "Live", live }),
      // Unless there is another key by now.
      onRefused: ({ message }) => rememberedKey() === api.key && signOut(message)
    })
    return () => {
      clearInterval(timer)
      leave()
    }
  }, [state.api])

  return { state, signIn, signOut: () => signOut("") }
}

/** The key that was entered in this tab. */
export const rememberedKey = (): string => sessionStorage.getItem(keyName) ?? ""

// internal

/** Kept for the session of this tab, and nowhere else. */
const keyName = "nodepass-key"
const infoEvery = 5000
const together = 50
