import Foundation

/// manifest.json of an exported folder: every constant that an app needs.
public struct Manifest: Codable, Sendable {
    public static let fileName = "manifest.json"

    public let frameRate: Double
    public let text: Text
    public let sampler: Sampler
    public let latents: Statistics
    public let pixels: [Float]
    public let clips: [Clip]
    public let packages: [Package]
    public let assets: [Package]

    public struct Text: Codable, Sendable {
        public let tokens: Int
        public let padID: Int32
        public let closingID: Int32

        enum CodingKeys: String, CodingKey {
            case tokens
            case padID = "pad_id"
            case closingID = "closing_id"
        }
    }

    public struct Sampler: Codable, Sendable {
        public let steps: Int
        public let noiseScale: Float

        enum CodingKeys: String, CodingKey {
            case steps
            case noiseScale = "noise_scale"
        }
    }

    public struct Statistics: Codable, Sendable {
        public let mean: [Float]
        public let std: [Float]
    }

    /// A shape of clips: its functions' name, and the latents' frames, rows, columns and channels. Where steps do
    /// without some of the network's modules, each names the function of the transformer's packages that it calls.
    public struct Clip: Codable, Sendable {
        public let clip: String
        public let function: String
        public let latentShape: [Int]
        public let times: [Float]
        public let timeFeatures: [[Float]]
        public let stepFunctions: [String]?
        public let stream: Stream?

        enum CodingKeys: String, CodingKey {
            case clip
            case function
            case latentShape = "latent_shape"
            case times
            case timeFeatures = "time_features"
            case stepFunctions = "step_functions"
            case stream
        }
    }

    /// The functions of a stream's first frame and of each later chunk, and the time features of time 0. Where steps do
    /// without modules, each has a function of its own, and every second later chunk may take those of reusingSteps.
    public struct Stream: Codable, Sendable {
        public let first: String
        public let next: String
        public let firstSteps: [String]?
        public let nextSteps: [String]?
        public let reusingSteps: [String]?
        public let chunkFrames: Int
        public let renewalFeatures: [Float]

        enum CodingKeys: String, CodingKey {
            case first
            case next
            case firstSteps = "first_steps"
            case nextSteps = "next_steps"
            case reusingSteps = "reusing_steps"
            case chunkFrames = "chunk_frames"
            case renewalFeatures = "renewal_features"
        }
    }

    /// A package of Core ML or an asset of Core AI.
    public struct Package: Codable, Sendable {
        public let name: String
        public let file: String
        public let functions: [String: Function]
    }

    /// A function of a package, or an entry point of an asset with the part and the function that it computes.
    public struct Function: Codable, Sendable {
        public let inputs: [String: Feature]
        public let outputs: [String: Feature]
        public let part: String?
        public let function: String?
    }

    public struct Feature: Codable, Sendable {
        public let shape: [Int]
        public let dtype: String
    }

    enum CodingKeys: String, CodingKey {
        case frameRate = "frame_rate"
        case text
        case sampler
        case latents
        case pixels
        case clips
        case packages
        case assets
    }

    public static func read(from folder: URL) throws -> Manifest {
        let data = try Data(contentsOf: folder.appending(path: fileName))
        return try JSONDecoder().decode(Manifest.self, from: data)
    }
}
