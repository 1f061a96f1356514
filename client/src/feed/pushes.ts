/** The push side of a region: its SignalR, by way of the functions' `negotiate`. */
import { HubConnectionBuilder, LogLevel } from "@microsoft/signalr";
import { describe } from "../api/problem.ts";

/** Client method that the functions invoke with one argument, an array of events. */
const TARGET = "console";

/** A connection that is made once. */
export interface Connection {
  /** Resolves when pushes can arrive; rejects when they never will. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

export interface Listener {
  onPush(argument: unknown): void;
  /** A connection that stood has ended. */
  onEnd(reason: string): void;
}

export type Connect = (functions: string, listener: Listener) => Connection;

export const connectSignalR: Connect = (functions, { onPush, onEnd }) => {
  // The client's own log would name URLs with access tokens; what it has to say arrives here as errors.
  const connection = new HubConnectionBuilder().withUrl(`${functions}/api`).configureLogging(LogLevel.None).build();
  connection.on(TARGET, onPush);
  connection.onclose((error) => onEnd(error ? describe(error) : "the service closed the connection"));
  return {
    start: () => connection.start(),
    stop: async () => {
      connection.off(TARGET);
      await connection.stop();
    },
  };
};
