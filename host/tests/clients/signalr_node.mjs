// The public SignalR client in Node: `node signalr_node.mjs URL`.
import * as signalR from '@microsoft/signalr';
import { scenario } from './signalr_scenario.mjs';

await scenario(signalR, process.argv[2]);
