// A service runs until it is disposed: for example the API or the janitor. Disposing drains it.

export interface Service extends AsyncDisposable {
  readonly name: string
}
